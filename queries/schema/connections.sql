-- One row per attempt to connect, finished or not: what it was, how it ended, and how long its session lived.
--
-- Every column is the minimum, the maximum or the logical or of something over the attempt's spans. So rows merge in any
-- order, twice or in pieces, to the same result: that is what lets the store maintain this relation as spans arrive.
-- `outcome` stays derived: an attempt that reached Connected was connected even if its `connect` span was lost, and one
-- that neither ended nor connected is unfinished.

create view connections as
with merged as (
select
  trace_id,
  max(attempt_id) as attempt_id,
  max(episode_id) as episode_id,
  max(session_id) as session_id,
  max(attempt_number) as attempt_number,
  min(start_ns) as start_ns,
  min(start_ns) filter (transition_to = 'Connected' or name = 'Connected') as connected_ns,
  max(end_ns) filter (name = 'connect') as end_ns,              -- when connect() returned or raised
  max(end_ns) filter (name = 'Connected') as disconnected_ns,
  max(end_ns) as last_seen_ns,
  max(received_ns) as received_ns,
  max(outcome) filter (name = 'connect') as reported_outcome,
  max(error_type) filter (name = 'connect') as error_type,
  max(status_message) filter (name = 'connect') as message,
  max(failing_step) as failing_step,
  max(failing_part) as failing_part,
  max(detail) filter (name = 'connect') as detail,
  max(end_ns - start_ns) filter (error_type is not null and name not in ('connect', state)) as failing_part_ns,
  bool_or(retryable) as retryable,
  max(step_number) as reached_step,                             -- 1 to 4
  bool_or(resume_requested) as resume_requested,
  bool_or(resumed) as resumed,
  max(media_requested) as media_requested,
  max(media_required) as media_required,
  max(media_granted) as media_granted,
  max(queue_position_first) as queue_position_first,
  max(queue_position_last) as queue_position_last,
  max(ice_gathered_host) as ice_gathered_host,                  -- the evidence of `verdicts`: null where not recorded
  max(ice_gathered_srflx) as ice_gathered_srflx,
  max(ice_gathered_relay) as ice_gathered_relay,
  max(ice_remote_host) as ice_remote_host,
  max(ice_remote_srflx) as ice_remote_srflx,
  max(ice_remote_relay) as ice_remote_relay,
  max(ice_servers) as ice_servers,
  bool_or(relay) as relay,
  max(local_candidate_type) as local_candidate_type,
  max(remote_candidate_type) as remote_candidate_type,
  max(disconnect_reason) as disconnect_reason,
  max(disconnect_detail) as disconnect_detail,
  max(ended_by) as ended_by,
  max(media_last_seen_ago_ms) filter (name = 'Connected') as media_last_seen_ago_ms,
  max(sample_number) as last_sample_number,
  min(rtt_s) as rtt_min_s,
  max(rtt_s) as rtt_max_s,
  max(video_packets_received) as video_packets_received,        -- cumulative, so the maximum is the last
  max(video_packets_lost) as video_packets_lost,
  max(video_frozen_ms) as video_frozen_max_ms,
  max(close_code) as close_code,
  max(close_reason) as close_reason,
  max(region) as region,
  max(environment) as environment,
  max(service_name) as service_name,
  max(client_version) as client_version,
  max(runtime) as runtime,
  max(network_type) as network_type,
  max(server_address) as server_address,
  max(synthetic) as synthetic,
  max(server_port) as server_port,
  max(service_instance_id) as service_instance_id,
  count(*) as span_count
from spans
where attempt_id is not null
group by trace_id
)
select
  * exclude (reported_outcome),
  case
    when reported_outcome is not null then reported_outcome
    when connected_ns is not null then 'connected'
    else 'unfinished'
  end as outcome
from merged;
