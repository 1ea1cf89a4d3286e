-- Every span that was acknowledged, one row each: the source of every other relation.
--
-- Typed columns hold what reports read (`telemetry/semconv.py` says which attribute fills which column); all other
-- attributes are kept whole, with their types, in `attributes`, `resource_attributes` and `scope_attributes`.
-- No key and no index: a PRIMARY KEY costs ingest a factor of four, and telemetry arrives late, twice, out of order or
-- not at all, so nothing may refer to a span by constraint. Duplicates are dropped before insertion.

create table spans (
  trace_id varchar not null,          -- 32 lower-case hex digits
  span_id varchar not null,           -- 16 lower-case hex digits
  parent_span_id varchar,             -- null for a root
  trace_state varchar,
  flags bigint,
  name varchar not null,
  kind varchar not null,              -- UNSPECIFIED, INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER
  start_ns bigint not null,           -- UTC, by the sender's clock
  end_ns bigint not null,
  status_code varchar not null,       -- UNSET, OK, ERROR
  status_message varchar,
  session_id varchar,                 -- session.id
  attempt_id varchar,                 -- dp.attempt.id
  episode_id varchar,                 -- dp.episode.id
  attempt_number bigint,              -- dp.attempt.number
  outcome varchar,                    -- dp.outcome
  error_type varchar,                 -- error.type
  failing_step varchar,               -- dp.failure.step
  failing_part varchar,               -- dp.failure.part
  detail varchar,                     -- dp.failure.detail
  retryable boolean,                  -- dp.failure.retryable
  resume_requested boolean,           -- dp.session.resume_requested
  resumed boolean,                    -- dp.session.resumed
  media_requested varchar,            -- dp.media.requested
  media_required varchar,             -- dp.media.required
  media_granted varchar,              -- dp.media.granted
  state varchar,                      -- dp.state
  step_number bigint,                 -- dp.step.number
  step_outcome varchar,               -- dp.step.outcome
  transition_from varchar,            -- dp.transition.from
  transition_to varchar,              -- dp.transition.to
  queue_position_first bigint,        -- dp.queue.position.first
  queue_position_last bigint,         -- dp.queue.position.last
  ice_gathered_host bigint,           -- dp.ice.gathered.host
  ice_gathered_srflx bigint,          -- dp.ice.gathered.srflx
  ice_gathered_relay bigint,          -- dp.ice.gathered.relay
  ice_remote_host bigint,             -- dp.ice.remote.host
  ice_remote_srflx bigint,            -- dp.ice.remote.srflx
  ice_remote_relay bigint,            -- dp.ice.remote.relay
  ice_servers bigint,                 -- dp.ice.servers
  relay boolean,                      -- dp.ice.relay
  local_candidate_type varchar,       -- webrtc.local.candidateType
  remote_candidate_type varchar,      -- webrtc.remote.candidateType
  close_code bigint,                  -- dp.close.code
  close_reason varchar,               -- dp.close.reason
  disconnect_reason varchar,          -- dp.disconnect.reason
  disconnect_detail varchar,          -- dp.disconnect.detail
  ended_by varchar,                   -- dp.disconnect.ended_by
  media_last_seen_ago_ms bigint,      -- dp.media.last_seen_ago_ms
  sample_number bigint,               -- dp.sample.number
  rtt_s double,                       -- webrtc.remote_inbound.roundTripTime
  video_packets_received bigint,      -- webrtc.inbound.video.packetsReceived
  video_packets_lost bigint,          -- webrtc.inbound.video.packetsLost
  video_jitter_s double,              -- webrtc.inbound.video.jitter
  video_frames_decoded bigint,        -- webrtc.inbound.video.framesDecoded
  video_frozen_ms bigint,             -- dp.media.video.frozen_ms
  audio_packets_received bigint,      -- webrtc.inbound.audio.packetsReceived
  audio_packets_lost bigint,          -- webrtc.inbound.audio.packetsLost
  audio_jitter_s double,              -- webrtc.inbound.audio.jitter
  bytes_received bigint,              -- webrtc.transport.bytesReceived
  bytes_sent bigint,                  -- webrtc.transport.bytesSent
  server_address varchar,             -- server.address
  server_port bigint,                 -- server.port
  network_type varchar,               -- network.connection.type
  synthetic varchar,                  -- user_agent.synthetic.type
  region varchar,                     -- cloud.region
  runtime varchar,                    -- user_agent.name, or resource process.runtime.name
  service_name varchar,               -- resource service.name
  client_version varchar,             -- resource service.version
  service_instance_id varchar,        -- resource service.instance.id
  environment varchar,                -- resource deployment.environment.name
  attributes variant,                 -- an object: the span attributes that have no column
  resource_attributes variant,        -- an object: the resource attributes that have no column
  resource_dropped_attributes_count bigint,
  resource_schema_url varchar,
  resource_entity_refs variant,       -- a list
  scope_name varchar,
  scope_version varchar,
  scope_attributes variant,           -- an object
  scope_dropped_attributes_count bigint,
  scope_schema_url varchar,
  dropped_attributes_count bigint,
  events variant,                     -- a list of {time_ns, name, attributes, dropped_attributes_count}; null for none
  dropped_events_count bigint,
  links variant,                      -- a list of {trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags}
  dropped_links_count bigint,
  received_ns bigint not null         -- UTC, by the receiver's clock
);
