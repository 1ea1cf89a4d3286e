-- Do people get through in the end: at the first try, after some tries, or not at all?
--
-- params:  since (timestamp = 24h), until (timestamp = now), bucket (duration = 1d),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per time bucket, by the episode's first attempt
-- ratios:  first_try_ratio of decided, eventual_ratio of decided, gave_up_ratio of decided
-- used by: telemetry report episodes; alert rules
--
-- An episode is one person's wish to be connected, with all its tries up to a day before and after the range.
-- The ratios are of `decided` episodes: those that got through, or failed and were not tried again.
-- Given up before any failure (`cancelled`) and unfinished ones are apart.
-- `eventual_low_ratio` and `_high_ratio` are the Wilson 95 % interval.

with tries as (
  select
    episode_id,
    count(*) as attempts,
    count(*) filter (where outcome = 'failed') as failures,
    min(start_ns) as start_ns,
    min(connected_ns) as connected_ns,
    arg_min(outcome, start_ns) as first_outcome,
    arg_max(outcome, start_ns) as last_outcome,
    max(region) as region,
    max(client_version) as client_version,
    max(runtime) as runtime,
    max(network_type) as network_type,
    max(server_address) as server_address,
    max(environment) as environment,
    max(synthetic) as synthetic
  from connections
  where start_ns >= $since - 86400000000000
    and start_ns < $until + 86400000000000
    and episode_id is not null
  group by 1
),
wishes as (
  select
    greatest(start_ns // $bucket * $bucket, $since) as bucket_ns,
    attempts,
    connected_ns is not null as got_through,
    first_outcome = 'connected' as at_first_try,
    connected_ns is null and failures > 0 and last_outcome <> 'unfinished' as gave_up,
    connected_ns is null and failures = 0 and last_outcome = 'cancelled' as is_cancelled,
    connected_ns is null and last_outcome = 'unfinished' as is_unfinished,
    connected_ns - start_ns as took_ns
  from tries
  where start_ns >= $since
    and start_ns < $until
    and ($region is null or region = $region)
    and ($client_version is null or client_version = $client_version)
    and ($runtime is null or runtime = $runtime)
    and ($network_type is null or network_type = $network_type)
    and ($server_address is null or server_address = $server_address)
    and ($environment is null or environment = $environment)
    and ($synthetic or synthetic is null)
),
counts as (
  select
    bucket_ns,
    count(*) as episodes,
    count(*) filter (where got_through or gave_up) as decided,
    count(*) filter (where at_first_try) as first_try,
    count(*) filter (where got_through) as eventual,
    count(*) filter (where gave_up) as gave_up,
    count(*) filter (where is_cancelled) as cancelled,
    count(*) filter (where is_unfinished) as unfinished,
    avg(attempts) filter (where got_through) as tries_mean,
    quantile_cont(took_ns / 1000000.0, 0.5) as first_success_p50_ms,
    quantile_cont(took_ns / 1000000.0, 0.95) as first_success_p95_ms
  from wishes
  group by 1
)
select
  bucket_ns,
  episodes,
  decided,
  first_try / nullif(decided, 0) as first_try_ratio,
  eventual / nullif(decided, 0) as eventual_ratio,
  eventual * eventual / nullif(decided, 0) / (
    eventual + 1.9207294 + 1.9599640 * sqrt(eventual * (decided - eventual) / nullif(decided, 0) + 0.9603647)
  ) as eventual_low_ratio,
  1 - (decided - eventual) * (decided - eventual) / nullif(decided, 0) / (
    decided - eventual + 1.9207294 + 1.9599640 * sqrt(eventual * (decided - eventual) / nullif(decided, 0) + 0.9603647)
  ) as eventual_high_ratio,
  gave_up / nullif(decided, 0) as gave_up_ratio,
  tries_mean,
  first_success_p50_ms,
  first_success_p95_ms,
  cancelled,
  unfinished
from counts
order by bucket_ns;
