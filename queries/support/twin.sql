-- Which attempt that connected is most like this one?
--
-- params:  trace_id (text), start (timestamp), since (timestamp), until (timestamp),
--          region, client_version, network_type, server_address, runtime (text or null), synthetic (text or null)
-- returns: one row with all that is known of it, or none
-- used by: telemetry session ID; the session page
--
-- Alike in as many as possible of server, region, version, network and runtime; among those, nearest in time.

select
  *
from connections
where trace_id <> $trace_id
  and outcome = 'connected'
  and start_ns >= $since
  and start_ns < $until
  and synthetic is not distinct from $synthetic
order by
  (server_address is distinct from $server_address)::bigint
    + (region is distinct from $region)::bigint
    + (client_version is distinct from $client_version)::bigint
    + (network_type is distinct from $network_type)::bigint
    + (runtime is distinct from $runtime)::bigint,
  abs(start_ns - $start),
  trace_id
limit 1;
