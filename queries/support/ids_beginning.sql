-- Which ids begin so?
--
-- params:  beginning (text)
-- returns: one row per id, latest first, at most 50
-- used by: telemetry session ID; the session page

with named as (
select
  unnest([
    {'kind': 'attempt', 'id': attempt_id},
    {'kind': 'session', 'id': session_id},
    {'kind': 'episode', 'id': episode_id},
    {'kind': 'trace', 'id': trace_id}
  ]) as name,
  trace_id,
  start_ns
from connections
where starts_with(attempt_id, $beginning)
  or starts_with(session_id, $beginning)
  or starts_with(episode_id, $beginning)
  or starts_with(trace_id, $beginning)
)
select
  name.kind as kind,
  name.id as id,
  min(trace_id) as trace_id,
  count(distinct trace_id) as attempts,
  max(start_ns) as start_ns
from named
where starts_with(name.id, $beginning)
group by name.kind, name.id
order by start_ns desc, kind, id
limit 50;
