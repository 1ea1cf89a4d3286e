-- How long did each step of some attempts take, and each part of it?
--
-- params:  trace_ids (list of text)
-- returns: one row per attempt and step, in the order of steps
-- used by: telemetry session ID; the session page

select *
from steps
where list_contains($trace_ids, trace_id)
order by trace_id, step_number;
