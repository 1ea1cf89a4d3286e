-- How long did each step of an attempt take, and each part of it?
--
-- params:  trace_id (text)
-- returns: one row per step, in their order
-- used by: telemetry session ID; the session page

select *
from steps
where trace_id = $trace_id
order by step_number;
