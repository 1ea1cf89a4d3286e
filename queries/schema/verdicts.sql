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
    when outcome = 'failed' then case
      when detail = 'permission_denied' then 'media.permission_denied user certain'
      when detail = 'device_not_found' then 'media.device_not_found user certain'
      when detail = 'device_in_use' then 'media.device_in_use user certain'
      when detail = 'device_failed' then 'media.device_failed user likely'
      when detail = 'codec_missing' then 'client.codec_missing client certain'
      when detail = 'capture_missing' then 'client.capture_missing client certain'
      when detail in ('step_deadline', 'connect_deadline') and failing_part = 'user_media' then 'media.permission_unanswered user likely'
      when detail = 'invalid_url' then 'open.invalid_url configuration certain'
      when detail = 'dns' then 'open.dns undetermined insufficient'
      when detail = 'tcp_refused' then 'open.tcp_refused server likely'
      when detail = 'tcp_unreachable' then 'open.tcp_unreachable network likely'
      when detail = 'tcp_timeout' then 'open.tcp_timeout network likely'
      when detail = 'tls' then 'open.tls configuration likely'
      when detail = 'not_signalling' then 'open.not_signalling configuration likely'
      when detail = 'http_401' then 'open.http_401 configuration certain'
      when detail = 'http_407' then 'open.http_407 network certain'
      when detail = 'http_403' then 'open.http_403 undetermined insufficient'
      when detail in ('http_404', 'http_410', 'http_405') then 'open.http_404 configuration likely'
      when detail = 'http_429' then 'open.http_429 capacity certain'
      when detail in ('http_502', 'http_503', 'http_504') then 'open.http_gateway server likely'
      when starts_with(detail, 'http_5') then 'open.http_5xx server likely'
      when starts_with(detail, 'http_') then 'open.http_other configuration likely'
      when detail in ('step_deadline', 'connect_deadline') and failing_part = 'websocket.open' then 'open.unanswered undetermined insufficient'
      when detail = 'busy' then 'queue.busy capacity certain'
      when detail = 'queue_full' then 'queue.full capacity certain'
      when detail = 'queue_timeout' then 'queue.timeout capacity certain'
      when detail in ('step_deadline', 'connect_deadline') and failing_part = 'queue' and queue_position_last is not null then 'queue.deadline capacity certain'
      when detail = 'server_timeout' and failing_part = 'queue' and queue_position_last is not null then 'queue.server_limit capacity certain'
      when detail in ('step_deadline', 'connect_deadline') and failing_part = 'queue' then 'queue.silent_server server likely'
      when detail = 'scene_unknown' then 'search.scene_unknown configuration certain'
      when detail = 'token_refused' then 'search.token_refused configuration certain'
      when detail = 'asset_failed' then 'server.asset_failed server certain'
      when detail in ('step_deadline', 'connect_deadline', 'server_timeout') and failing_part = 'assets' then 'server.assets_stalled server likely'
      when detail = 'server_error' then 'server.error server certain'
      when detail = 'protocol_violation' and close_code = 4400 then 'server.protocol_violation_ours client likely'
      when detail = 'protocol_violation' then 'server.protocol_violation server likely'
      when detail = 'message_too_big' and close_code = 1009 then 'server.message_too_big_ours client likely'
      when detail = 'message_too_big' then 'server.message_too_big server certain'
      when detail = 'socket_lost' and close_reason = 'no answer to a ping' then 'network.socket_silent network likely'
      when detail = 'socket_lost' and close_code = 1006 and close_reason is null then 'server.socket_reset server likely'
      when detail = 'socket_lost' then 'server.socket_lost undetermined insufficient'
      when detail = 'sdp_refused' and close_code = 4415 then 'negotiate.sdp_refused_by_server undetermined insufficient'
      when detail = 'sdp_refused' then 'negotiate.answer_unusable server likely'
      when detail in ('step_deadline', 'connect_deadline', 'server_timeout') and failing_part = 'webrtc.negotiate' then 'negotiate.unanswered server likely'
      when failing_part = 'webrtc.ice' and ice_remote_host <= 0 and ice_remote_srflx <= 0 and ice_remote_relay <= 0 then 'ice.none_from_server server certain'
      when failing_part = 'webrtc.ice' and ice_gathered_host <= 0 and ice_gathered_srflx <= 0 and ice_gathered_relay <= 0 then 'ice.none_gathered client likely'
      when failing_part = 'webrtc.ice' and ice_gathered_relay > 0 then 'ice.relay_unpaired server likely'
      when failing_part = 'webrtc.ice' and ice_gathered_relay <= 0 and ice_servers = 0 then 'ice.no_relay_offered undetermined insufficient'
      when failing_part = 'webrtc.ice' and ice_gathered_relay <= 0 and ice_servers > 0 and ice_gathered_srflx > 0 then 'ice.relay_not_granted configuration likely'
      when failing_part = 'webrtc.ice' and ice_gathered_relay <= 0 and ice_servers > 0 and ice_gathered_srflx <= 0 then 'ice.servers_unreached network likely'
      when failing_part = 'webrtc.ice' then 'ice.unrecorded undetermined insufficient'
      when failing_part = 'webrtc.dtls' and failing_part_ns <= 3000000000 then 'dtls.refused server likely'
      when failing_part = 'webrtc.dtls' then 'dtls.unanswered undetermined insufficient'
      when failing_part = 'media.first_frame' and video_packets_received > 0 then 'media.undecoded client likely'
      when failing_part = 'media.first_frame' then 'media.never_started server likely'
      when detail = 'peer_closed' then 'media.peer_closed server likely'
      when detail = 'media_silent' then 'media.silent undetermined insufficient'
      when detail = 'server_timeout' then 'server.limit_in_media undetermined insufficient'
      when detail in ('step_deadline', 'connect_deadline') then 'deadline.between_parts undetermined insufficient'
      when starts_with(detail, 'close_') then 'server.closed server likely'
      when detail in ('ice_no_candidates', 'ice_no_pair', 'dtls', 'no_first_frame') then 'ice.outside_its_part undetermined insufficient'
      when detail is null and error_type is null then 'telemetry.no_reason telemetry insufficient'
      when error_type = 'noUserMedia' then 'unknown.user_media user likely'
      when error_type = 'notSupported' then 'unknown.not_supported client likely'
      when error_type = 'noScene' then 'unknown.no_scene capacity likely'
      else 'unknown.failure undetermined insufficient'
    end
    when outcome = 'cancelled' then case
      when reached_step = 1 and queue_position_last is not null then 'cancelled.queue user certain'
      else 'cancelled user certain'
    end
    when outcome = 'unfinished' then 'unfinished undetermined insufficient'
    when outcome = 'connected' then case
      when disconnect_reason = 'connectionLost' and disconnect_detail = 'socket_lost' and close_reason = 'no answer to a ping' and media_last_seen_ago_ms <= 1000 then 'lost.signalling_silent undetermined insufficient'
      when disconnect_reason = 'connectionLost' and disconnect_detail = 'socket_lost' and media_last_seen_ago_ms <= 1000 then 'lost.socket_reset server likely'
      when disconnect_reason = 'connectionLost' and disconnect_detail = 'socket_lost' and media_last_seen_ago_ms > 1000 then 'lost.silence network likely'
      when disconnect_reason = 'connectionLost' and disconnect_detail = 'media_silent' then 'lost.media_silent undetermined insufficient'
      when disconnect_reason = 'connectionLost' and disconnect_detail = 'peer_closed' and media_last_seen_ago_ms <= 5000 then 'lost.peer_closed server likely'
      when disconnect_reason = 'connectionLost' and disconnect_detail = 'peer_closed' then 'lost.peer_closed_late undetermined insufficient'
      when disconnect_reason = 'connectionLost' and disconnect_detail = 'server_error' then 'lost.server_error server certain'
      when disconnect_reason = 'connectionLost' and disconnect_detail = 'token_refused' then 'lost.token configuration certain'
      when disconnect_reason = 'connectionLost' and ended_by = 'server' then 'lost.closed_by_server server likely'
      when disconnect_reason = 'connectionLost' then 'lost undetermined insufficient'
      when disconnect_reason = 'sessionTimeout' then 'ended.idle user likely'
      when cast(video_packets_lost as double) * 19 > video_packets_received then 'quality.loss network likely'
      when rtt_min_s > 0.4 then 'quality.latency network likely'
      when video_frozen_max_ms > 2000 then 'quality.frozen undetermined insufficient'
      when media_requested <> media_granted then 'connected.unheard user likely'
      when disconnect_reason = 'normal' then 'connected.ended nobody certain'
      when disconnect_reason is null then 'connected.open nobody likely'
      else 'connected.other undetermined insufficient'
    end
    else 'unknown telemetry insufficient'
  end as verdict
from connections
)
select
  * exclude (verdict),
  split_part(verdict, ' ', 1) as rule,
  split_part(verdict, ' ', 2) as owner,
  split_part(verdict, ' ', 3) as certainty
from judged;
