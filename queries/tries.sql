-- How many tries does it take until someone gets through or gives up?
--
-- params:  since (timestamp = 24h), until (timestamp = now),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per number of attempts that an episode had
-- used by: telemetry report tries
--
-- `connected_by_ratio` is the share of all decided episodes that got through with at most that many tries.

with wishes as (
  select
    attempts as tries,
    count(*) filter (where connected_ns is not null) as connected,
    count(*) filter (where connected_ns is null) as gave_up
  from episodes
  where start_ns >= $since
    and start_ns < $until
    and ($region is null or region = $region)
    and ($client_version is null or client_version = $client_version)
    and ($runtime is null or runtime = $runtime)
    and ($network_type is null or network_type = $network_type)
    and ($server_address is null or server_address = $server_address)
    and ($environment is null or environment = $environment)
    and ($synthetic or synthetic is null)
    and (connected_ns is not null or (failures > 0 and last_outcome <> 'unfinished'))
  group by 1
)
select
  tries,
  connected,
  gave_up,
  sum(connected) over (order by tries) / sum(connected + gave_up) over () as connected_by_ratio
from wishes
order by tries;
