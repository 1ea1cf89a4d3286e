-- Which attempts do these ids name?
--
-- params:  ids (list of text), hashes (list of integers)
-- returns: one row per attempt with all that is known of it, and which id names it, latest first
-- used by: telemetry session ID; the session page
--
-- Hashes find the rows, and the ids themselves decide: see queries/schema/ids.sql.

with named as (
  select
    trace_id as named_trace_id,
    min(start_ns) as from_ns,
    max(last_seen_ns) as to_ns
  from ids
  where list_contains($hashes, id_hash)
  group by 1
)
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
  connections.*
from connections
join named on trace_id = named_trace_id
where start_ns <= to_ns
  and last_seen_ns >= from_ns
  and (
    list_contains($ids, attempt_id)
    or list_contains($ids, session_id)
    or list_contains($ids, episode_id)
    or list_contains($ids, trace_id)
  )
order by start_ns desc, trace_id
limit 1000;
