-- Which errors occur, since when, how often, and to whom?
--
-- params:  since (timestamp = 24h), until (timestamp = now), by (text = detail | message),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per error, failing step, part and detail (and message, with `by` message), most frequent first
-- ratios:  failed_ratio of failed
-- used by: telemetry report errors; the overview page
--
-- `failed_ratio` is of all failed attempts.
-- `first_seen` and `last_seen` are within the range.
-- `message` is the newest one where they are not told apart; the two attempt ids are there to be opened.

with failures as (
  select
    error_type,
    failing_step,
    failing_part,
    detail,
    case when $by = 'message' then message end as told_apart,
    message,
    episode_id,
    service_instance_id,
    attempt_id,
    start_ns
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
    and outcome = 'failed'
),
errors as (
  select
    error_type,
    failing_step,
    failing_part,
    detail,
    told_apart,
    count(*) as attempts,
    count(distinct episode_id) as episodes,
    count(distinct service_instance_id) as clients,
    min(start_ns) as first_seen_ns,
    max(start_ns) as last_seen_ns,
    arg_max(message, start_ns) as message,
    arg_min(attempt_id, start_ns) as first_attempt_id,
    arg_max(attempt_id, start_ns) as last_attempt_id
  from failures
  group by 1, 2, 3, 4, 5
)
select
  error_type,
  failing_step,
  failing_part,
  detail,
  attempts,
  sum(attempts) over () as failed,
  attempts / sum(attempts) over () as failed_ratio,
  episodes,
  clients,
  first_seen_ns,
  last_seen_ns,
  message,
  first_attempt_id,
  last_attempt_id
from errors
order by attempts desc, error_type, failing_step, failing_part, detail, message;
