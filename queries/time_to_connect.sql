-- How long does it take from connect() to the first video frame, and for whom?
--
-- params:  since (timestamp = 24h), until (timestamp = now), bin (duration = 250ms),
--          by (text = all | region | client_version | runtime | network_type | server_address | environment | relay),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per value of `by` and bin of time that any attempt fell into
-- ratios:  within_ratio of ended
-- used by: telemetry report time_to_connect; the overview page
--
-- A histogram:
-- `connected` attempts took from `from_ms` up to, but not including, `to_ms`.
-- `within_ratio` is the share of all attempts that connected or failed in which the person was seen before `to_ms`: it
-- never reaches 1 where some fail.
-- `p50_ms` and `p95_ms` are of the whole value of `by`, over those who connected.

with attempts as (
  select
    case
      when $by = 'all' then 'all'
      when $by = 'region' then region
      when $by = 'client_version' then client_version
      when $by = 'runtime' then runtime
      when $by = 'network_type' then network_type
      when $by = 'server_address' then server_address
      when $by = 'environment' then environment
      when relay then 'relay'
      when not relay then 'direct'
    end as value,
    case when outcome = 'connected' then connected_ns - start_ns end as took_ns
  from connections
  where start_ns >= $since
    and start_ns < $until
    and ($region is null or region = $region)
    and ($client_version is null or client_version = $client_version)
    and ($runtime is null or runtime = $runtime)
    and ($network_type is null or network_type = $network_type)
    and ($server_address is null or server_address = $server_address)
    and ($environment is null or environment = $environment)
    and ($synthetic or synthetic is null)
    and outcome in ('connected', 'failed')
),
bins as (
  select
    coalesce(value, 'unknown') as value,
    took_ns // $bin as bin,
    count(*) as attempts
  from attempts
  group by 1, 2
),
histogram as (
  select
    value,
    bin,
    attempts,
    sum(attempts) over (partition by value) as ended,
    sum(case when bin is not null then attempts end) over (partition by value order by bin) as within
  from bins
),
percentiles as (
  select
    coalesce(value, 'unknown') as value,
    quantile_cont(took_ns / 1000000.0, 0.5) as p50_ms,
    quantile_cont(took_ns / 1000000.0, 0.95) as p95_ms
  from attempts
  group by 1
)
select
  histogram.value,
  bin * $bin / 1000000.0 as from_ms,
  (bin + 1) * $bin / 1000000.0 as to_ms,
  attempts as connected,
  ended,
  within / ended as within_ratio,
  p50_ms,
  p95_ms
from histogram
join percentiles on histogram.value = percentiles.value
where bin is not null
order by histogram.value, bin;
