-- How long do the steps and parts take for others, and how many are faster than this attempt?
--
-- params:  trace_id (text), names (list of text), durations (list of integers), since (timestamp), until (timestamp),
--          region, client_version, network_type, server_address (text or null), synthetic (text or null)
-- returns: one row per step and part that others completed, in no order that matters to the eye
-- used by: telemetry session ID; the session page
--
-- Only completed steps count: a step that failed says how long it was borne, not how long it takes.

with measured as (
select
  unnest([
    {'name': step, 'ns': duration_ns},
    {'name': 'user_media', 'ns': user_media_ns},
    {'name': 'websocket.open', 'ns': websocket_open_ns},
    {'name': 'queue', 'ns': queue_ns},
    {'name': 'assets', 'ns': assets_ns},
    {'name': 'webrtc.negotiate', 'ns': negotiate_ns},
    {'name': 'webrtc.ice', 'ns': ice_ns},
    {'name': 'webrtc.dtls', 'ns': dtls_ns},
    {'name': 'media.first_frame', 'ns': first_frame_ns}
  ]) as measure
from steps
where trace_id <> $trace_id
  and outcome = 'completed'
  and start_ns >= $since
  and start_ns < $until
  and ($region is null or region = $region)
  and ($client_version is null or client_version = $client_version)
  and ($network_type is null or network_type = $network_type)
  and ($server_address is null or server_address = $server_address)
  and synthetic is not distinct from $synthetic
)
select
  measure.name as name,
  count(*) as n,
  count(*) filter (measure.ns <= list_extract($durations, list_position($names, measure.name))) as not_slower,
  quantile_cont(measure.ns, 0.5) as p50_ns,
  quantile_cont(measure.ns, 0.95) as p95_ns
from measured
where measure.ns is not null
group by measure.name
order by name;
