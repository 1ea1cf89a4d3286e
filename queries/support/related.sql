-- What happened in the same episode, in the same session, and to the same client?
--
-- params:  episode_id (text or null), session_id (text or null), service_instance_id (text or null),
--          trace_ids (list of text), since (timestamp), until (timestamp)
-- returns: one row per attempt, that which is asked about among them, in the order of time, at most 201
-- used by: telemetry session ID; the session page
--
-- `related_traces` says which attempts these may be, and when.

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
where list_contains($trace_ids, trace_id)
  and start_ns <= $until
  and last_seen_ns >= $since
  and (episode_id = $episode_id or session_id = $session_id or service_instance_id = $service_instance_id)
order by start_ns, trace_id
limit 201;
