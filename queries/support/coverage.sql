-- Which time does the store cover?
--
-- params:  none
-- returns: one row; nulls when the store is empty
-- used by: telemetry session ID, when it finds nothing

select
  min(start_ns) as since_ns,
  max(last_seen_ns) as until_ns,
  max(received_ns) as received_ns,
  count(*) as attempts
from connections;
