-- How many tries does it take until someone gets through or gives up?
--
-- params:  since (timestamp = 24h), until (timestamp = now),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per number of attempts that an episode had
-- ratios:  connected_by_ratio of decided
-- used by: telemetry report tries
--
-- An episode's tries are looked for up to a day before and after the range.
-- `connected_by_ratio` is the share of all decided episodes that got through with at most that many tries.

with episode_tries as (
  select
    episode_id,
    count(*) as attempts,
    count(*) filter (where outcome = 'failed') as failures,
    min(start_ns) as start_ns,
    min(connected_ns) as connected_ns,
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
    attempts as tries,
    count(*) filter (where connected_ns is not null) as connected,
    count(*) filter (where connected_ns is null) as gave_up
  from episode_tries
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
  sum(connected + gave_up) over () as decided,
  sum(connected) over (order by tries) / sum(connected + gave_up) over () as connected_by_ratio
from wishes
order by tries;
