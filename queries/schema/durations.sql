-- One row per attempt and thing that takes time: the whole of connect(), each step, and each part of a step.
--
-- The step `connect` is the whole way from connect() to the first video frame; `part` is null for a whole step.
-- `ended` says how the time ended: completed, failed, cancelled, unfinished, or timed_out when anyone's limit ended
-- it.
-- A completed time says how long the thing takes; every other one says only that it takes longer than that.
-- The part that a cancelled step was in is the last one that it entered.
-- A part that was open when its client vanished left no trace, so unfinished rows are of whole steps only.

create view durations as
select
  trace_id,
  attempt_id,
  session_id,
  'connect' as step,
  cast(null as varchar) as part,
  start_ns,
  coalesce(end_ns, connected_ns, last_seen_ns) - start_ns as duration_ns,
  case
    when outcome = 'connected' then 'completed'
    when outcome <> 'failed' then outcome
    when error_type = 'sessionTimeout' or detail in ('queue_timeout', 'tcp_timeout', 'no_first_frame') then 'timed_out'
    else 'failed'
  end as ended,
  detail,
  region,
  environment,
  service_name,
  client_version,
  runtime,
  network_type,
  server_address,
  synthetic
from connections
union all
select
  trace_id,
  attempt_id,
  session_id,
  step,
  part,
  start_ns,
  case
    when part is null then coalesce(end_ns, last_seen_ns) - start_ns
    when part = 'user_media' then user_media_ns
    when part = 'websocket.open' then websocket_open_ns
    when part = 'queue' then queue_ns
    when part = 'assets' then assets_ns
    when part = 'webrtc.negotiate' then negotiate_ns
    when part = 'webrtc.ice' then ice_ns
    when part = 'webrtc.dtls' then dtls_ns
    when part = 'media.first_frame' then first_frame_ns
    when outcome = 'completed' then other_ns
  end as duration_ns,
  case
    when part is null and outcome <> 'failed' then outcome
    when part = 'user_media' and outcome = 'cancelled' and websocket_open_ns is null then 'cancelled'
    when part = 'websocket.open' and outcome = 'cancelled' and queue_ns is null then 'cancelled'
    when part in ('queue', 'assets', 'media.first_frame') and outcome = 'cancelled' then 'cancelled'
    when part = 'webrtc.negotiate' and outcome = 'cancelled' and ice_ns is null then 'cancelled'
    when part = 'webrtc.ice' and outcome = 'cancelled' and dtls_ns is null then 'cancelled'
    when part = 'webrtc.dtls' and outcome = 'cancelled' and first_frame_ns is null then 'cancelled'
    when part is not null and (outcome <> 'failed' or failing_part is null or part <> failing_part) then 'completed'
    when error_type = 'sessionTimeout' or detail in ('queue_timeout', 'tcp_timeout', 'no_first_frame') then 'timed_out'
    else 'failed'
  end as ended,
  detail,
  region,
  environment,
  service_name,
  client_version,
  runtime,
  network_type,
  server_address,
  synthetic
from steps
cross join (
  select cast(null as varchar) as part
  union all select 'user_media'
  union all select 'websocket.open'
  union all select 'queue'
  union all select 'assets'
  union all select 'webrtc.negotiate'
  union all select 'webrtc.ice'
  union all select 'webrtc.dtls'
  union all select 'media.first_frame'
  union all select 'other'
) as parts;
