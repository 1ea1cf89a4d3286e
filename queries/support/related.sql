-- What happened in the same episode, in the same session, and to the same client?
--
-- params:  episode_id (text or null), session_id (text or null), service_instance_id (text or null),
--          since (timestamp), until (timestamp)
-- returns: one row per attempt, that which is asked about among them, in the order of time, at most 201
-- used by: telemetry session ID; the session page
--
-- The same client means the same running program (service.instance.id), within the given time.

with of_episode as (
  select
    trace_id as related_trace_id,
    start_ns as from_ns,
    last_seen_ns as to_ns
  from ids
  where id_hash = md5_number_lower($episode_id) % 4294967296
),
of_session as (
  select
    trace_id as related_trace_id,
    start_ns as from_ns,
    last_seen_ns as to_ns
  from ids
  where id_hash = md5_number_lower($session_id) % 4294967296
),
of_client as (
  select
    trace_id as related_trace_id,
    start_ns as from_ns,
    last_seen_ns as to_ns
  from connections
  where service_instance_id = $service_instance_id
    and start_ns >= $since
    and start_ns < $until
),
of_either as (
  select * from of_episode
  union all
  select * from of_session
  union all
  select * from of_client
),
found as (
  select
    related_trace_id,
    min(from_ns) as from_ns,
    max(to_ns) as to_ns
  from of_either
  group by 1
)
select
  trace_id,
  attempt_id,
  session_id,
  episode_id,
  attempt_number,
  start_ns,
  connected_ns,
  end_ns,
  disconnected_ns,
  last_seen_ns,
  outcome,
  error_type,
  detail,
  failing_step,
  disconnect_reason,
  resumed,
  coalesce(episode_id = $episode_id, false) as same_episode,
  coalesce(session_id = $session_id, false) as same_session,
  coalesce(service_instance_id = $service_instance_id, false) as same_client
from connections
join found on trace_id = related_trace_id
where start_ns <= to_ns
  and last_seen_ns >= from_ns
  and (
    episode_id = $episode_id
    or session_id = $session_id
    or (service_instance_id = $service_instance_id and start_ns >= $since and start_ns < $until)
  )
order by start_ns, trace_id
limit 201;
