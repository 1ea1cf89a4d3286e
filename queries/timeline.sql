-- What happened in one session or attempt, span by span?
--
-- params:  id (text, required), since (timestamp), until (timestamp)
-- returns: one row per span, in order of time, of every attempt that has the id
-- used by: telemetry report timeline
--
-- The id is a whole sessionId, attempt id, episode id or trace id.
-- Spans that others added to an attempt's trace are left out where their clock is more than an hour astray; on a
-- cluster, from the spans that carry the id.

with attempts as (
  select
    trace_id as attempt_trace_id,
    min(start_ns) - 3600000000000 as from_ns,
    max(last_seen_ns) + 3600000000000 as to_ns
  from ids
  where id_hash = md5_number_lower($id) % 4294967296
  group by 1
  having bool_or(id = $id) -- compared last: of texts, in all rows, it costs as much as the numbers
)
select
  start_ns,
  (end_ns - start_ns) / 1000000.0 as duration_ms,
  trace_id,
  span_id,
  parent_span_id,
  name,
  state,
  attempt_id,
  session_id,
  status_code,
  status_message,
  outcome,
  step_outcome,
  error_type,
  detail,
  transition_from,
  transition_to,
  queue_position_first,
  queue_position_last,
  relay,
  close_code,
  close_reason,
  disconnect_reason,
  ended_by,
  media_last_seen_ago_ms,
  rtt_s,
  video_packets_received,
  video_packets_lost,
  received_ns
from spans
join attempts on trace_id = attempt_trace_id
where start_ns >= from_ns
  and start_ns <= to_ns
  and ($since is null or start_ns >= $since)
  and ($until is null or start_ns < $until)
order by start_ns, end_ns desc, trace_id, span_id;
