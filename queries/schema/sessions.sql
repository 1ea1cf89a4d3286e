-- One row per sessionId: a session may have many connections, when it persists and its client reconnects.

create view sessions as
select
  session_id,
  count(*) as connections,
  count(*) filter (outcome = 'connected') as connected,
  count(*) filter (resumed) as resumed,
  min(start_ns) as start_ns,
  min(connected_ns) as connected_ns,
  max(disconnected_ns) as disconnected_ns,
  max(last_seen_ns) as last_seen_ns,
  sum(disconnected_ns - connected_ns) as connected_for_ns,
  arg_max(attempt_id, (start_ns, trace_id)) as last_attempt_id,
  arg_max(outcome, (start_ns, trace_id)) as last_outcome,
  arg_max(disconnect_reason, (start_ns, trace_id)) filter (disconnect_reason is not null) as last_disconnect_reason,
  max(region) as region,
  max(environment) as environment,
  max(service_name) as service_name,
  max(client_version) as client_version,
  max(runtime) as runtime,
  max(network_type) as network_type,
  max(server_address) as server_address,
  max(synthetic) as synthetic
from connections
where session_id is not null
group by session_id;
