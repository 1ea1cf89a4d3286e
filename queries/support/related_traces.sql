-- Which attempts may be of the same episode, of the same session, and of the same client?
--
-- params:  hashes (list of integers), service_instance_id (text or null), since (timestamp), until (timestamp)
-- returns: one row per attempt, in the order of time, at most 201
-- used by: telemetry session ID; the session page
--
-- The same client means the same running program (service.instance.id), within the given time.

with of_either as (
  select
    trace_id,
    start_ns,
    last_seen_ns
  from ids
  where list_contains($hashes, id_hash)
  union all
  select
    trace_id,
    start_ns,
    last_seen_ns
  from connections
  where service_instance_id = $service_instance_id
    and start_ns >= $since
    and start_ns < $until
)
select
  trace_id,
  min(start_ns) as from_ns,
  max(last_seen_ns) as to_ns
from of_either
group by 1
order by from_ns, trace_id
limit 201;
