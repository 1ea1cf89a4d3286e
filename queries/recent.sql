-- Which attempts were made last, and how did each end?
--
-- params:  since (timestamp = 24h), until (timestamp = now), outcome (text), error_type (text), detail (text),
--          failing_step (text), owner (text), disconnect_reason (text), ended_by (text), disconnect_detail (text),
--          at_least (duration), below (duration), order (text = newest | slowest), limit (integer = 50),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per attempt, newest or slowest first; open any of the ids with `telemetry session`
-- used by: telemetry report recent; the overview page
--
-- All attempts are listed: cancelled and unfinished ones too.
-- `rule` and `owner` are the verdict's.
-- `at_least` and `below` choose by the time that connecting took.

select
  start_ns,
  attempt_id,
  session_id,
  outcome,
  error_type,
  failing_step,
  failing_part,
  detail,
  owner,
  rule,
  (coalesce(end_ns, last_seen_ns) - start_ns) / 1000000.0 as connecting_ms,
  (coalesce(disconnected_ns, last_seen_ns) - connected_ns) / 1000000000.0 as connected_s,
  disconnect_reason,
  region,
  client_version,
  network_type,
  message
from verdicts
where start_ns >= $since
  and start_ns < $until
  and ($region is null or region = $region)
  and ($client_version is null or client_version = $client_version)
  and ($runtime is null or runtime = $runtime)
  and ($network_type is null or network_type = $network_type)
  and ($server_address is null or server_address = $server_address)
  and ($environment is null or environment = $environment)
  and ($synthetic or synthetic is null)
  and ($outcome is null or outcome = $outcome)
  and ($error_type is null or error_type = $error_type)
  and ($detail is null or detail = $detail)
  and ($failing_step is null or failing_step = $failing_step)
  and ($owner is null or owner = $owner)
  and ($disconnect_reason is null or disconnect_reason = $disconnect_reason)
  and ($ended_by is null or ended_by = $ended_by)
  and ($disconnect_detail is null or disconnect_detail = $disconnect_detail)
  and ($at_least is null or coalesce(end_ns, last_seen_ns) - start_ns >= $at_least)
  and ($below is null or coalesce(end_ns, last_seen_ns) - start_ns < $below)
order by
  case when $order = 'slowest' then coalesce(end_ns, last_seen_ns) - start_ns end desc,
  start_ns desc,
  attempt_id
limit $limit;
