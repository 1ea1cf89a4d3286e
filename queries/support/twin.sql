-- Which attempt that connected is most like this one?
--
-- params:  trace_id (text), start (timestamp), since (timestamp), until (timestamp),
--          region, client_version, network_type, server_address, runtime (text or null), synthetic (text or null)
-- returns: one row with what two attempts are compared by, or none
-- used by: telemetry session ID; the session page
--
-- Alike in as many as possible of server, region, version, network and runtime; among those, nearest in time.

select
  trace_id,
  attempt_id,
  start_ns,
  last_seen_ns,
  server_address,
  region,
  client_version,
  network_type,
  runtime,
  environment,
  media_requested,
  media_granted,
  resume_requested,
  relay,
  local_candidate_type,
  remote_candidate_type,
  ice_servers,
  ice_gathered_host,
  ice_gathered_srflx,
  ice_gathered_relay,
  ice_remote_host,
  ice_remote_srflx,
  ice_remote_relay,
  queue_position_first
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
