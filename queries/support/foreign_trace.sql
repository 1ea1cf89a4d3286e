-- Is there a trace of this id that is no attempt of the connector's?
--
-- params:  trace_id (text)
-- returns: one row
-- used by: telemetry session ID, when it finds nothing

select
  count(*) as spans,
  max(service_name) as service_name
from spans
where trace_id = $trace_id;
