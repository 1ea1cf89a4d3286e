-- Which attempts do these ids name?
--
-- params:  ids (list of text), trace_ids (list of text), since (timestamp), until (timestamp)
-- returns: one row per attempt with all that is known of it, and which id names it, latest first
-- used by: telemetry session ID; the session page
--
-- `named` says which attempts these may be, and when.

select
  case
    when list_contains($ids, attempt_id) then 'attempt'
    when list_contains($ids, session_id) then 'session'
    when list_contains($ids, episode_id) then 'episode'
    else 'trace'
  end as kind,
  case
    when list_contains($ids, attempt_id) then attempt_id
    when list_contains($ids, session_id) then session_id
    when list_contains($ids, episode_id) then episode_id
    else trace_id
  end as id,
  *
from connections
where list_contains($trace_ids, trace_id)
  and start_ns <= $until
  and last_seen_ns >= $since
  and (
    list_contains($ids, attempt_id)
    or list_contains($ids, session_id)
    or list_contains($ids, episode_id)
    or list_contains($ids, trace_id)
  )
order by start_ns desc, trace_id
limit 1000;
