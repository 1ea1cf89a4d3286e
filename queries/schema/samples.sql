-- One row per heartbeat of a live session, with what WebRTC could tell at that moment.
--
-- Counters are cumulative from the connection's start, as W3C defines them; null where the client could not know.

create view samples as
select
  trace_id,
  span_id,
  attempt_id,
  session_id,
  start_ns as at_ns,
  sample_number,
  rtt_s,
  video_packets_received,
  video_packets_lost,
  video_jitter_s,
  video_frames_decoded,
  video_frozen_ms,
  audio_packets_received,
  audio_packets_lost,
  audio_jitter_s,
  bytes_received,
  bytes_sent,
  media_last_seen_ago_ms,
  region,
  environment,
  service_name,
  client_version,
  runtime,
  network_type,
  server_address,
  synthetic
from spans
where name = 'sample' and attempt_id is not null;
