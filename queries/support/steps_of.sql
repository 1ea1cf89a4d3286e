-- How long did each step of an attempt take, and each part of it?
--
-- params:  trace_id (text), since (timestamp or null), until (timestamp or null)
-- returns: one row per step, in their order
-- used by: telemetry session ID; the session page
--
-- Without times, every trace id in the store is compared.

select *
from steps
where trace_id = $trace_id
  and ($since is null or start_ns >= $since)
  and ($until is null or start_ns < $until)
order by step_number;
