-- How did other attempts fare with the same server, and in the same network, at that time?
--
-- params:  trace_id (text), server_address (text or null), server_port (integer or null), detail (text or null),
--          service_instance_id (text or null), region (text or null), since (timestamp), until (timestamp)
-- returns: one row
-- used by: telemetry session ID; the session page

select
  count(*) as attempts,
  count(*) filter (outcome = 'connected') as connected,
  count(*) filter (outcome = 'failed') as failed,
  count(*) filter (outcome = 'failed' and detail = $detail) as failed_alike,
  count(*) filter (session_id is not null) as accepted,
  count(*) filter (disconnect_reason = 'connectionLost') as lost,
  count(distinct service_instance_id) as clients
from connections
where trace_id <> $trace_id
  and server_address = $server_address
  and ($server_port is null or server_port = $server_port)
  and (service_instance_id is null or $service_instance_id is null or service_instance_id <> $service_instance_id)
  and ($region is null or region = $region)
  and start_ns >= $since
  and start_ns < $until;
