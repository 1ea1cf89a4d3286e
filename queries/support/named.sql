-- Which attempts may these ids name, and when were they?
--
-- params:  hashes (list of integers)
-- returns: one row per attempt, latest first, at most 1000
-- used by: telemetry session ID; the session page
--
-- Hashes find the rows, and who asks compares the ids themselves: see queries/schema/ids.sql, also for the times.

select
  trace_id,
  min(start_ns) as from_ns,
  max(last_seen_ns) as to_ns
from ids
where list_contains($hashes, id_hash)
group by 1
order by to_ns desc, trace_id
limit 1000;
