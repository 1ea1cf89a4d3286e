-- How many sessions are open at once?
--
-- params:  since (timestamp = 24h), until (timestamp = now), now (timestamp = now), bucket (duration = 1h),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per time bucket, those in which nothing happened too
-- used by: telemetry report concurrency; the overview page
--
-- `open_at_start` sessions were open as the bucket began, `open_at_end` as it ended; `mean` is weighted by time;
-- `peak` is the most at any moment.
-- A session is open from Connected until it ended.
-- One whose end was not reported is open until it was last heard of, or still, when that is less than three minutes
-- ago.
-- `no_scene` attempts began in the bucket and were refused for want of a digital person: a sign of the capacity's end.

with attempts as (
  select
    start_ns,
    connected_ns,
    coalesce(
      disconnected_ns, case when last_seen_ns < $now - 180000000000 then last_seen_ns else $until end
    ) as ended_ns,
    outcome,
    error_type
  from connections
  where start_ns < $until
    and last_seen_ns >= $since - 180000000000
    and ($region is null or region = $region)
    and ($client_version is null or client_version = $client_version)
    and ($runtime is null or runtime = $runtime)
    and ($network_type is null or network_type = $network_type)
    and ($server_address is null or server_address = $server_address)
    and ($environment is null or environment = $environment)
    and ($synthetic or synthetic is null)
),
marks as (
  select greatest(connected_ns, $since) as at_ns, 1 as opened, 0 as no_scene, 0 as is_start
  from attempts
  where connected_ns < $until and ended_ns > connected_ns and ended_ns > $since
  union all
  select ended_ns, -1, 0, 0
  from attempts
  where connected_ns < $until and ended_ns > connected_ns and ended_ns > $since and ended_ns < $until
  union all
  select start_ns, 0, 1, 0
  from attempts
  where start_ns >= $since and outcome = 'failed' and error_type = 'noScene'
  union all
  select greatest(at_ns, $since), 0, 0, 1
  from (select unnest(range($since // $bucket * $bucket, $until, $bucket)) as at_ns) as starts
),
moments as (
  select
    at_ns,
    sum(opened) as opened,
    sum(no_scene) as no_scene,
    max(is_start) as is_start
  from marks
  group by 1
),
levels as (
  select
    at_ns,
    greatest(at_ns // $bucket * $bucket, $since) as bucket_ns,
    no_scene,
    is_start,
    sum(opened) over (order by at_ns) as open_sessions,
    coalesce(lead(at_ns) over (order by at_ns), $until) - at_ns as lasted_ns
  from moments
)
select
  bucket_ns,
  max(case when is_start = 1 then open_sessions end) as open_at_start,
  sum(cast(open_sessions as double) * lasted_ns) / sum(lasted_ns) as mean,
  max(open_sessions) as peak,
  arg_max(open_sessions, at_ns) as open_at_end,
  sum(no_scene) as no_scene
from levels
group by 1
order by bucket_ns;
