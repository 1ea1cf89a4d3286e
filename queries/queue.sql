-- How long do people queue for a digital person, and how many give up or are sent away?
--
-- params:  since (timestamp = 24h), until (timestamp = now), bucket (duration = 1h),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per time bucket
-- ratios:  queued_ratio of asked, gave_up_ratio of queued, no_scene_ratio of asked
-- used by: telemetry report queue; the overview page
--
-- `asked` reached the server and asked for a digital person; `queued` were given a position, the others needed none.
-- The waits are of those queued, by Kaplan-Meier: who gave up or was sent away counts as waiting until then.
-- Waits that a clock set back made negative are left out.
-- `no_scene` were refused for want of a digital person, queued or not.

with asked as (
  select
    greatest(start_ns // $bucket * $bucket, $since) as bucket_ns,
    case when queue_position_first is not null then queue_ns // 1000000 end as wait_ms,
    queue_position_first,
    outcome,
    outcome = 'failed' and error_type = 'noScene' as is_no_scene
  from steps
  where start_ns >= $since
    and start_ns < $until
    and ($region is null or region = $region)
    and ($client_version is null or client_version = $client_version)
    and ($runtime is null or runtime = $runtime)
    and ($network_type is null or network_type = $network_type)
    and ($server_address is null or server_address = $server_address)
    and ($environment is null or environment = $environment)
    and ($synthetic or synthetic is null)
    and step = 'SearchingForDigitalPerson'
    and queue_ns >= 0
),
counts as (
  select
    bucket_ns,
    wait_ms,
    count(*) as asked,
    count(*) filter (where is_no_scene) as no_scene,
    count(queue_position_first) as queued,
    count(*) filter (where queue_position_first is not null and outcome = 'completed') as admitted,
    count(*) filter (where queue_position_first is not null and outcome = 'cancelled') as gave_up,
    sum(queue_position_first) as positions,
    max(queue_position_first) as position_max
  from asked
  group by 1, 2
),
at_risk as (
  select
    *,
    case when queued > 0 then sum(queued) over (partition by bucket_ns order by wait_ms desc) end as waiting
  from counts
),
curves as (
  select
    *,
    exp(sum(case when admitted < waiting then ln(1 - admitted / waiting) when queued > 0 then -1000 end)
      over (partition by bucket_ns order by wait_ms)) - 0.000000001 as still_waiting_ratio
  from at_risk
)
select
  bucket_ns,
  sum(asked) as asked,
  sum(queued) as queued,
  sum(queued) / sum(asked) as queued_ratio,
  min(wait_ms) filter (where admitted > 0 and still_waiting_ratio <= 0.5) as wait_p50_ms,
  min(wait_ms) filter (where admitted > 0 and still_waiting_ratio <= 0.05) as wait_p95_ms,
  max(wait_ms) as wait_max_ms,
  sum(gave_up) as gave_up,
  sum(gave_up) / nullif(sum(queued), 0) as gave_up_ratio,
  sum(no_scene) as no_scene,
  sum(no_scene) / sum(asked) as no_scene_ratio,
  sum(positions) / nullif(sum(queued), 0) as position_mean,
  max(position_max) as position_max
from curves
group by bucket_ns
order by bucket_ns;
