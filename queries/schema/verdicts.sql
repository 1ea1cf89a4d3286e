-- One row per attempt with its verdict: the rule that decided, whose it was, and how certain that is.
--
-- Written by `python -m telemetry.support.rules` from the table there, which gives each rule its reason and source.
-- The first rule that holds decides.
-- An owner `undetermined` means that the facts do not tell, `nobody` that nothing failed.

create view verdicts as
with judged as (
select
  *,
  case
    when outcome = 'failed' and detail = 'permission_denied' then 'media.permission_denied'
    when outcome = 'failed' and detail = 'device_not_found' then 'media.device_not_found'
    when outcome = 'failed' and detail = 'device_in_use' then 'media.device_in_use'
    when outcome = 'failed' and detail = 'device_failed' then 'media.device_failed'
    when outcome = 'failed' and detail = 'codec_missing' then 'client.codec_missing'
    when outcome = 'failed' and detail = 'capture_missing' then 'client.capture_missing'
    when outcome = 'failed' and detail in ('step_deadline', 'connect_deadline') and failing_part = 'user_media' then 'media.permission_unanswered'
    when outcome = 'failed' and detail = 'invalid_url' then 'open.invalid_url'
    when outcome = 'failed' and detail = 'dns' then 'open.dns'
    when outcome = 'failed' and detail = 'tcp_refused' then 'open.tcp_refused'
    when outcome = 'failed' and detail = 'tcp_unreachable' then 'open.tcp_unreachable'
    when outcome = 'failed' and detail = 'tcp_timeout' then 'open.tcp_timeout'
    when outcome = 'failed' and detail = 'tls' then 'open.tls'
    when outcome = 'failed' and detail = 'not_signalling' then 'open.not_signalling'
    when outcome = 'failed' and detail = 'http_401' then 'open.http_401'
    when outcome = 'failed' and detail = 'http_407' then 'open.http_407'
    when outcome = 'failed' and detail = 'http_403' then 'open.http_403'
    when outcome = 'failed' and detail in ('http_404', 'http_410', 'http_405') then 'open.http_404'
    when outcome = 'failed' and detail = 'http_429' then 'open.http_429'
    when outcome = 'failed' and detail in ('http_502', 'http_503', 'http_504') then 'open.http_gateway'
    when outcome = 'failed' and starts_with(detail, 'http_5') then 'open.http_5xx'
    when outcome = 'failed' and starts_with(detail, 'http_') then 'open.http_other'
    when outcome = 'failed' and detail in ('step_deadline', 'connect_deadline') and failing_part = 'websocket.open' then 'open.unanswered'
    when outcome = 'failed' and detail = 'busy' then 'queue.busy'
    when outcome = 'failed' and detail = 'queue_full' then 'queue.full'
    when outcome = 'failed' and detail = 'queue_timeout' then 'queue.timeout'
    when outcome = 'failed' and detail in ('step_deadline', 'connect_deadline') and failing_part = 'queue' and queue_position_last is not null then 'queue.deadline'
    when outcome = 'failed' and detail = 'server_timeout' and failing_part = 'queue' and queue_position_last is not null then 'queue.server_limit'
    when outcome = 'failed' and detail in ('step_deadline', 'connect_deadline') and failing_part = 'queue' then 'queue.silent_server'
    when outcome = 'failed' and detail = 'scene_unknown' then 'search.scene_unknown'
    when outcome = 'failed' and detail = 'token_refused' then 'search.token_refused'
    when outcome = 'failed' and detail = 'asset_failed' then 'server.asset_failed'
    when outcome = 'failed' and detail in ('step_deadline', 'connect_deadline', 'server_timeout') and failing_part = 'assets' then 'server.assets_stalled'
    when outcome = 'failed' and detail = 'server_error' then 'server.error'
    when outcome = 'failed' and detail = 'protocol_violation' and close_code = 4400 then 'server.protocol_violation_ours'
    when outcome = 'failed' and detail = 'protocol_violation' then 'server.protocol_violation'
    when outcome = 'failed' and detail = 'message_too_big' and close_code = 1009 then 'server.message_too_big_ours'
    when outcome = 'failed' and detail = 'message_too_big' then 'server.message_too_big'
    when outcome = 'failed' and detail = 'socket_lost' and close_reason = 'no answer to a ping' then 'network.socket_silent'
    when outcome = 'failed' and detail = 'socket_lost' and close_code = 1006 and close_reason is null then 'server.socket_reset'
    when outcome = 'failed' and detail = 'socket_lost' then 'server.socket_lost'
    when outcome = 'failed' and detail = 'sdp_refused' and close_code = 4415 then 'negotiate.sdp_refused_by_server'
    when outcome = 'failed' and detail = 'sdp_refused' then 'negotiate.answer_unusable'
    when outcome = 'failed' and detail in ('step_deadline', 'connect_deadline', 'server_timeout') and failing_part = 'webrtc.negotiate' then 'negotiate.unanswered'
    when outcome = 'failed' and failing_part = 'webrtc.ice' and ice_remote_host <= 0 and ice_remote_srflx <= 0 and ice_remote_relay <= 0 then 'ice.none_from_server'
    when outcome = 'failed' and failing_part = 'webrtc.ice' and ice_gathered_host <= 0 and ice_gathered_srflx <= 0 and ice_gathered_relay <= 0 then 'ice.none_gathered'
    when outcome = 'failed' and failing_part = 'webrtc.ice' and ice_gathered_relay > 0 then 'ice.relay_unpaired'
    when outcome = 'failed' and failing_part = 'webrtc.ice' and ice_gathered_relay <= 0 and ice_servers = 0 then 'ice.no_relay_offered'
    when outcome = 'failed' and failing_part = 'webrtc.ice' and ice_gathered_relay <= 0 and ice_servers > 0 and ice_gathered_srflx > 0 then 'ice.relay_not_granted'
    when outcome = 'failed' and failing_part = 'webrtc.ice' and ice_gathered_relay <= 0 and ice_servers > 0 and ice_gathered_srflx <= 0 then 'ice.servers_unreached'
    when outcome = 'failed' and failing_part = 'webrtc.ice' then 'ice.unrecorded'
    when outcome = 'failed' and failing_part = 'webrtc.dtls' and failing_part_ns <= 3000000000 then 'dtls.refused'
    when outcome = 'failed' and failing_part = 'webrtc.dtls' then 'dtls.unanswered'
    when outcome = 'failed' and failing_part = 'media.first_frame' and video_packets_received > 0 then 'media.undecoded'
    when outcome = 'failed' and failing_part = 'media.first_frame' then 'media.never_started'
    when outcome = 'failed' and detail = 'peer_closed' then 'media.peer_closed'
    when outcome = 'failed' and detail = 'media_silent' then 'media.silent'
    when outcome = 'failed' and detail = 'server_timeout' then 'server.limit_in_media'
    when outcome = 'failed' and detail in ('step_deadline', 'connect_deadline') then 'deadline.between_parts'
    when outcome = 'failed' and starts_with(detail, 'close_') then 'server.closed'
    when outcome = 'failed' and detail in ('ice_no_candidates', 'ice_no_pair', 'dtls', 'no_first_frame') then 'ice.outside_its_part'
    when outcome = 'failed' and detail is null and error_type is null then 'telemetry.no_reason'
    when outcome = 'failed' and error_type = 'noUserMedia' then 'unknown.user_media'
    when outcome = 'failed' and error_type = 'notSupported' then 'unknown.not_supported'
    when outcome = 'failed' and error_type = 'noScene' then 'unknown.no_scene'
    when outcome = 'failed' then 'unknown.failure'
    when outcome = 'cancelled' and reached_step = 1 and queue_position_last is not null then 'cancelled.queue'
    when outcome = 'cancelled' then 'cancelled'
    when outcome = 'unfinished' then 'unfinished'
    when outcome = 'connected' and disconnect_reason = 'connectionLost' and disconnect_detail = 'socket_lost' and close_reason = 'no answer to a ping' and media_last_seen_ago_ms <= 1000 then 'lost.signalling_silent'
    when outcome = 'connected' and disconnect_reason = 'connectionLost' and disconnect_detail = 'socket_lost' and media_last_seen_ago_ms <= 1000 then 'lost.socket_reset'
    when outcome = 'connected' and disconnect_reason = 'connectionLost' and disconnect_detail = 'socket_lost' and media_last_seen_ago_ms > 1000 then 'lost.silence'
    when outcome = 'connected' and disconnect_reason = 'connectionLost' and disconnect_detail = 'media_silent' then 'lost.media_silent'
    when outcome = 'connected' and disconnect_reason = 'connectionLost' and disconnect_detail = 'peer_closed' and media_last_seen_ago_ms <= 5000 then 'lost.peer_closed'
    when outcome = 'connected' and disconnect_reason = 'connectionLost' and disconnect_detail = 'peer_closed' then 'lost.peer_closed_late'
    when outcome = 'connected' and disconnect_reason = 'connectionLost' and disconnect_detail = 'server_error' then 'lost.server_error'
    when outcome = 'connected' and disconnect_reason = 'connectionLost' and disconnect_detail = 'token_refused' then 'lost.token'
    when outcome = 'connected' and disconnect_reason = 'connectionLost' and ended_by = 'server' then 'lost.closed_by_server'
    when outcome = 'connected' and disconnect_reason = 'connectionLost' then 'lost'
    when outcome = 'connected' and disconnect_reason = 'sessionTimeout' then 'ended.idle'
    when outcome = 'connected' and cast(video_packets_lost as double) * 19 > video_packets_received then 'quality.loss'
    when outcome = 'connected' and rtt_min_s > 0.4 then 'quality.latency'
    when outcome = 'connected' and video_frozen_max_ms > 2000 then 'quality.frozen'
    when outcome = 'connected' and media_requested <> media_granted then 'connected.unheard'
    when outcome = 'connected' and disconnect_reason = 'normal' then 'connected.ended'
    when outcome = 'connected' and disconnect_reason is null then 'connected.open'
    when outcome = 'connected' then 'connected.other'
    else 'unknown'
  end as rule
from connections
)
select
  *,
  case
    when rule in (
      'media.permission_denied',
      'media.device_not_found',
      'media.device_in_use',
      'media.device_failed',
      'media.permission_unanswered',
      'unknown.user_media',
      'cancelled.queue',
      'cancelled',
      'ended.idle',
      'connected.unheard'
    ) then 'user'
    when rule in (
      'client.codec_missing',
      'client.capture_missing',
      'server.protocol_violation_ours',
      'server.message_too_big_ours',
      'ice.none_gathered',
      'media.undecoded',
      'unknown.not_supported'
    ) then 'client'
    when rule in (
      'open.invalid_url',
      'open.tls',
      'open.not_signalling',
      'open.http_401',
      'open.http_404',
      'open.http_other',
      'search.scene_unknown',
      'search.token_refused',
      'ice.relay_not_granted',
      'lost.token'
    ) then 'configuration'
    when rule in (
      'open.dns',
      'open.http_403',
      'open.unanswered',
      'server.socket_lost',
      'negotiate.sdp_refused_by_server',
      'ice.no_relay_offered',
      'ice.unrecorded',
      'dtls.unanswered',
      'media.silent',
      'server.limit_in_media',
      'deadline.between_parts',
      'ice.outside_its_part',
      'unknown.failure',
      'unfinished',
      'lost.signalling_silent',
      'lost.media_silent',
      'lost.peer_closed_late',
      'lost',
      'quality.frozen',
      'connected.other'
    ) then 'undetermined'
    when rule in (
      'open.tcp_refused',
      'open.http_gateway',
      'open.http_5xx',
      'queue.silent_server',
      'server.asset_failed',
      'server.assets_stalled',
      'server.error',
      'server.protocol_violation',
      'server.message_too_big',
      'server.socket_reset',
      'negotiate.answer_unusable',
      'negotiate.unanswered',
      'ice.none_from_server',
      'ice.relay_unpaired',
      'dtls.refused',
      'media.never_started',
      'media.peer_closed',
      'server.closed',
      'lost.socket_reset',
      'lost.peer_closed',
      'lost.server_error',
      'lost.closed_by_server'
    ) then 'server'
    when rule in (
      'open.tcp_unreachable',
      'open.tcp_timeout',
      'open.http_407',
      'network.socket_silent',
      'ice.servers_unreached',
      'lost.silence',
      'quality.loss',
      'quality.latency'
    ) then 'network'
    when rule in (
      'open.http_429',
      'queue.busy',
      'queue.full',
      'queue.timeout',
      'queue.deadline',
      'queue.server_limit',
      'unknown.no_scene'
    ) then 'capacity'
    when rule in (
      'telemetry.no_reason',
      'unknown'
    ) then 'telemetry'
    when rule in (
      'connected.ended',
      'connected.open'
    ) then 'nobody'
  end as owner,
  case
    when rule in (
      'media.permission_denied',
      'media.device_not_found',
      'media.device_in_use',
      'client.codec_missing',
      'client.capture_missing',
      'open.invalid_url',
      'open.http_401',
      'open.http_407',
      'open.http_429',
      'queue.busy',
      'queue.full',
      'queue.timeout',
      'queue.deadline',
      'queue.server_limit',
      'search.scene_unknown',
      'search.token_refused',
      'server.asset_failed',
      'server.error',
      'server.message_too_big',
      'ice.none_from_server',
      'cancelled.queue',
      'cancelled',
      'lost.server_error',
      'lost.token',
      'connected.ended'
    ) then 'certain'
    when rule in (
      'media.device_failed',
      'media.permission_unanswered',
      'open.tcp_refused',
      'open.tcp_unreachable',
      'open.tcp_timeout',
      'open.tls',
      'open.not_signalling',
      'open.http_404',
      'open.http_gateway',
      'open.http_5xx',
      'open.http_other',
      'queue.silent_server',
      'server.assets_stalled',
      'server.protocol_violation_ours',
      'server.protocol_violation',
      'server.message_too_big_ours',
      'network.socket_silent',
      'server.socket_reset',
      'negotiate.answer_unusable',
      'negotiate.unanswered',
      'ice.none_gathered',
      'ice.relay_unpaired',
      'ice.relay_not_granted',
      'ice.servers_unreached',
      'dtls.refused',
      'media.undecoded',
      'media.never_started',
      'media.peer_closed',
      'server.closed',
      'unknown.user_media',
      'unknown.not_supported',
      'unknown.no_scene',
      'lost.socket_reset',
      'lost.silence',
      'lost.peer_closed',
      'lost.closed_by_server',
      'ended.idle',
      'quality.loss',
      'quality.latency',
      'connected.unheard',
      'connected.open'
    ) then 'likely'
    when rule in (
      'open.dns',
      'open.http_403',
      'open.unanswered',
      'server.socket_lost',
      'negotiate.sdp_refused_by_server',
      'ice.no_relay_offered',
      'ice.unrecorded',
      'dtls.unanswered',
      'media.silent',
      'server.limit_in_media',
      'deadline.between_parts',
      'ice.outside_its_part',
      'telemetry.no_reason',
      'unknown.failure',
      'unfinished',
      'lost.signalling_silent',
      'lost.media_silent',
      'lost.peer_closed_late',
      'lost',
      'quality.frozen',
      'connected.other',
      'unknown'
    ) then 'insufficient'
  end as certainty
from judged;
