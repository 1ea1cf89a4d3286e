-- Which attempts and sessions began, never ended, and have fallen silent?
--
-- params:  since (timestamp = 24h), until (timestamp = now), now (timestamp = now), silent (duration = 3m),
--          limit (integer = 50),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per attempt, the one heard of last first; open any of the ids with `telemetry session`
-- used by: telemetry report unfinished
--
-- Their client was killed, lost its network for good, or its telemetry was lost on the way: what is here cannot tell
-- which.
-- `last_step` is the last one that was entered:
-- Connected means that the session was live when it fell silent.

select
  start_ns,
  attempt_id,
  session_id,
  case reached_step
    when 1 then 'SearchingForDigitalPerson'
    when 2 then 'DownloadingAssets'
    when 3 then 'ConnectingToDigitalPerson'
    when 4 then 'Connected'
  end as last_step,
  last_seen_ns,
  ($now - last_seen_ns) / 1000000000.0 as silent_s,
  (last_seen_ns - start_ns) / 1000000000.0 as lived_s,
  span_count,
  region,
  client_version,
  runtime,
  network_type,
  server_address
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
  and (outcome = 'unfinished' or (connected_ns is not null and disconnected_ns is null))
  and last_seen_ns < $now - $silent
order by last_seen_ns desc, attempt_id
limit $limit;
