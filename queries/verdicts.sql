-- What is behind the attempts and sessions that did not go well, and whose is it?
--
-- params:  since (timestamp = 24h), until (timestamp = now), owner (text), certainty (text), all (boolean = false),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per rule that decided, the most frequent first, with attempts to open
-- ratios:  attempts_ratio of all_attempts
-- used by: telemetry report verdicts
--
-- The same rules judge one session in `telemetry session`; `attempts_ratio` is of all attempts in the range.
-- Verdicts of nobody's fault are left out unless `all` is true.

with verdict_counts as (
  select
    rule,
    owner,
    certainty,
    count(*) as attempts,
    count(distinct episode_id) as episodes,
    count(distinct service_instance_id) as clients,
    min(start_ns) as first_seen_ns,
    max(start_ns) as last_seen_ns,
    arg_max(attempt_id, start_ns) as last_attempt_id
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
  group by 1, 2, 3
),
shares as (
  select
    *,
    sum(attempts) over () as all_attempts,
    attempts / sum(attempts) over () as attempts_ratio
  from verdict_counts
)
select
  owner,
  rule,
  certainty,
  attempts,
  all_attempts,
  attempts_ratio,
  episodes,
  clients,
  first_seen_ns,
  last_seen_ns,
  last_attempt_id
from shares
where ($all or owner <> 'nobody')
  and ($owner is null or owner = $owner)
  and ($certainty is null or certainty = $certainty)
order by attempts desc, rule;
