-- What is known of one attempt as a whole?
--
-- params:  trace_id (text)
-- returns: one row
-- used by: telemetry session ID; the session page

select *
from connections
where trace_id = $trace_id;
