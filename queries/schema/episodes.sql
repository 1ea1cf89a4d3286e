-- One row per episode: one user's wish to be connected, with all the attempts that one connect() made for it.

create view episodes as
select
  episode_id,
  count(*) as attempts,
  count(*) filter (outcome = 'failed') as failures,
  min(start_ns) as start_ns,
  max(last_seen_ns) as last_seen_ns,
  min(connected_ns) as connected_ns,                            -- the first success
  arg_min(outcome, (start_ns, trace_id)) as first_outcome,
  arg_max(outcome, (start_ns, trace_id)) as last_outcome,
  arg_max(error_type, (start_ns, trace_id)) filter (error_type is not null) as last_error_type,
  arg_max(session_id, (start_ns, trace_id)) filter (session_id is not null) as last_session_id,
  arg_max(attempt_id, (start_ns, trace_id)) as last_attempt_id,
  max(region) as region,
  max(environment) as environment,
  max(service_name) as service_name,
  max(client_version) as client_version,
  max(runtime) as runtime,
  max(network_type) as network_type,
  max(server_address) as server_address,
  max(synthetic) as synthetic
from connections
where episode_id is not null
group by episode_id;
