-- One row per attempt and connecting step, with the time of each of its parts.
--
-- A step's row begins with the transition into it, so a step that never ended is here with `end_ns` null.
-- `other_ns` is what the parts leave over: parts and `other_ns` add up to `duration_ns` exactly. It is null where one of
-- them lasts thirty years, as a wrong clock may say: nine of those pass 64 bits.

create view steps as
with merged as (
select
  trace_id,
  state as step,
  max(attempt_id) as attempt_id,
  max(episode_id) as episode_id,
  max(session_id) as session_id,
  max(step_number) as step_number,
  min(start_ns) filter (name = state or name = 'transition') as start_ns,
  max(end_ns) filter (name = state) as end_ns,
  max(end_ns) as last_seen_ns,
  max(step_outcome) filter (name = state) as reported_outcome,
  max(error_type) filter (name = state) as error_type,
  max(failing_part) filter (name = state) as failing_part,
  max(detail) filter (name = state) as detail,
  max(end_ns - start_ns) filter (name = 'user_media') as user_media_ns,
  max(end_ns - start_ns) filter (name = 'websocket.open') as websocket_open_ns,
  max(end_ns - start_ns) filter (name = 'queue') as queue_ns,
  max(end_ns - start_ns) filter (name = 'assets') as assets_ns,
  max(end_ns - start_ns) filter (name = 'webrtc.negotiate') as negotiate_ns,
  max(end_ns - start_ns) filter (name = 'webrtc.ice') as ice_ns,
  max(end_ns - start_ns) filter (name = 'webrtc.dtls') as dtls_ns,
  max(end_ns - start_ns) filter (name = 'media.first_frame') as first_frame_ns,
  max(queue_position_first) as queue_position_first,
  max(queue_position_last) as queue_position_last,
  max(region) as region,
  max(environment) as environment,
  max(service_name) as service_name,
  max(client_version) as client_version,
  max(runtime) as runtime,
  max(network_type) as network_type,
  max(server_address) as server_address,
  max(synthetic) as synthetic,
  count(*) as span_count
from spans
where attempt_id is not null and state in ('SearchingForDigitalPerson', 'DownloadingAssets', 'ConnectingToDigitalPerson')
group by trace_id, state
)
select
  * exclude (reported_outcome),
  coalesce(reported_outcome, 'unfinished') as outcome,
  end_ns - start_ns as duration_ns,
  case
    when greatest(
      abs(end_ns - start_ns),
      abs(coalesce(user_media_ns, 0)),
      abs(coalesce(websocket_open_ns, 0)),
      abs(coalesce(queue_ns, 0)),
      abs(coalesce(assets_ns, 0)),
      abs(coalesce(negotiate_ns, 0)),
      abs(coalesce(ice_ns, 0)),
      abs(coalesce(dtls_ns, 0)),
      abs(coalesce(first_frame_ns, 0))
    ) < 1000000000000000000
    then end_ns - start_ns
      - coalesce(user_media_ns, 0)
      - coalesce(websocket_open_ns, 0)
      - coalesce(queue_ns, 0)
      - coalesce(assets_ns, 0)
      - coalesce(negotiate_ns, 0)
      - coalesce(ice_ns, 0)
      - coalesce(dtls_ns, 0)
      - coalesce(first_frame_ns, 0)
  end as other_ns
from merged;
