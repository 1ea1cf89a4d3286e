-- How many sessions are open when people are turned away for want of a digital person?
--
-- params:  since (timestamp = 24h), until (timestamp = now), now (timestamp = now), band (integer = 10),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per band of sessions that were open when an attempt began
-- ratios:  no_scene_ratio of attempts
-- used by: telemetry report saturation
--
-- Where `no_scene_ratio` (Wilson 95 % interval) leaves zero is the capacity in practice.
-- A session is open from Connected until it ended, or until it was last heard of where no end was reported.
-- Filters choose both the sessions and the attempts; choose a server to see that server's capacity.

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
  select connected_ns as at_ns, 1 as opened, 0 as arrived, 0 as refused
  from attempts
  where connected_ns is not null
  union all
  select ended_ns, -1, 0, 0
  from attempts
  where connected_ns is not null
  union all
  select start_ns, 0, 1, case when outcome = 'failed' and error_type = 'noScene' then 1 else 0 end
  from attempts
  where start_ns >= $since
),
levels as (
  select
    arrived,
    refused,
    greatest($band, 1) as size,
    sum(opened) over (order by at_ns, opened rows between unbounded preceding and current row) as open_sessions
  from marks
),
bands as (
  select
    size,
    (open_sessions // size) * size as open_from,
    count(*) as attempts,
    count(*) filter (where refused = 1) as no_scene
  from levels
  where arrived = 1
  group by 1, 2
)
select
  open_from,
  open_from + size - 1 as open_to,
  attempts,
  no_scene,
  no_scene / nullif(attempts, 0) as no_scene_ratio,
  no_scene * no_scene / nullif(attempts, 0) / (
    no_scene + 1.9207294 + 1.9599640 * sqrt(no_scene * (attempts - no_scene) / nullif(attempts, 0) + 0.9603647)
  ) as no_scene_low_ratio,
  1 - (attempts - no_scene) * (attempts - no_scene) / nullif(attempts, 0) / (
    attempts - no_scene + 1.9207294
    + 1.9599640 * sqrt(no_scene * (attempts - no_scene) / nullif(attempts, 0) + 0.9603647)
  ) as no_scene_high_ratio
from bands
order by open_from;
