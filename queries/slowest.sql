-- Which attempts took longest, as a whole or in one step or part?
--
-- params:  since (timestamp = 24h), until (timestamp = now),
--          step (text = connect | SearchingForDigitalPerson | DownloadingAssets | ConnectingToDigitalPerson),
--          part (text), ended (text), detail (text), at_least (duration), below (duration), limit (integer = 50),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per attempt, the slowest first; open any of the ids with `telemetry session`
-- used by: telemetry report slowest; the overview page
--
-- `ended` says how the time ended: completed, failed, timed_out, cancelled or unfinished.
-- All are listed unless one is chosen; `at_least` and `below` choose by time.

select
  start_ns,
  attempt_id,
  session_id,
  duration_ns / 1000000.0 as duration_ms,
  ended,
  detail,
  region,
  client_version,
  runtime,
  network_type,
  server_address
from durations
where start_ns >= $since
  and start_ns < $until
  and ($region is null or region = $region)
  and ($client_version is null or client_version = $client_version)
  and ($runtime is null or runtime = $runtime)
  and ($network_type is null or network_type = $network_type)
  and ($server_address is null or server_address = $server_address)
  and ($environment is null or environment = $environment)
  and ($synthetic or synthetic is null)
  and step = $step
  and (part = $part or (part is null and $part is null))
  and ($ended is null or ended = $ended)
  and ($detail is null or detail = $detail)
  and ($at_least is null or duration_ns >= $at_least)
  and ($below is null or duration_ns < $below)
  and duration_ns is not null
order by duration_ns desc, start_ns desc, attempt_id
limit $limit;
