-- Which ids are nearest to one that is not there?
--
-- params:  id (text)
-- returns: one row per id, nearest first, at most 5
-- used by: telemetry session ID, when it finds nothing
--
-- Only ids that share the first three or the last three characters are compared letter by letter: comparing all of them
-- would take seconds on a large store, and a slip of the pen rarely hits both ends.

with named as (
select
  unnest([attempt_id, session_id, episode_id, trace_id]) as id,
  start_ns
from connections
),
alike as (
select
  id,
  max(start_ns) as start_ns
from named
where starts_with(id, left($id, 3)) or ends_with(id, right($id, 3))
group by id
)
select
  id,
  levenshtein(id, $id) as distance
from alike
where levenshtein(id, $id) <= 3
order by distance, start_ns desc, id
limit 5;
