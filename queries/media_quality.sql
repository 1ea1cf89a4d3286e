-- How good are sound and picture while people are connected?
--
-- params:  since (timestamp = 24h), until (timestamp = now), bucket (duration = 1h),
--          by (text = all | region | client_version | runtime | network_type | server_address | environment),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per time bucket and value of `by`
-- ratios:  video_loss_ratio of video_packets, video_loss_poor_ratio of video_loss_samples,
--          audio_loss_ratio of audio_packets, audio_loss_poor_ratio of audio_loss_samples,
--          video_jitter_poor_ratio of video_jitter_samples, rtt_poor_ratio of rtt_samples,
--          frozen_ratio of video_samples
-- used by: telemetry report media_quality
--
-- From the samples of live sessions.
-- Counters are cumulative, so loss is taken between two samples of the same session; the first sample in the range
-- counts from the session's start only if it is the session's first.
-- What a client could not measure is left out and never 0; a figure that no one measured is null.
-- A sample is poor above the limits that Twilio's SDK warns at: 1 % loss, 30 ms jitter, 400 ms round trip; it is
-- frozen when the picture has stood still for more than half a second.

with differences as (
  select
    at_ns,
    trace_id,
    rtt_s,
    video_jitter_s,
    audio_jitter_s,
    video_frozen_ms,
    case
      when $by = 'all' then 'all'
      when $by = 'region' then region
      when $by = 'client_version' then client_version
      when $by = 'runtime' then runtime
      when $by = 'network_type' then network_type
      when $by = 'server_address' then server_address
      else environment
    end as value,
    video_frames_decoded is not null as is_video,
    video_packets_lost - coalesce(lag(video_packets_lost) over (partition by trace_id order by at_ns),
      case when sample_number = 1 then 0 end) as video_lost,
    video_packets_received - coalesce(lag(video_packets_received) over (partition by trace_id order by at_ns),
      case when sample_number = 1 then 0 end) as video_received,
    audio_packets_lost - coalesce(lag(audio_packets_lost) over (partition by trace_id order by at_ns),
      case when sample_number = 1 then 0 end) as audio_lost,
    audio_packets_received - coalesce(lag(audio_packets_received) over (partition by trace_id order by at_ns),
      case when sample_number = 1 then 0 end) as audio_received
  from samples
  where at_ns >= $since
    and at_ns < $until
    and ($region is null or region = $region)
    and ($client_version is null or client_version = $client_version)
    and ($runtime is null or runtime = $runtime)
    and ($network_type is null or network_type = $network_type)
    and ($server_address is null or server_address = $server_address)
    and ($environment is null or environment = $environment)
    and ($synthetic or synthetic is null)
),
measured as (
  select
    greatest(at_ns // $bucket * $bucket, $since) as bucket_ns,
    coalesce(value, 'unknown') as value,
    trace_id,
    rtt_s * 1000 as rtt_ms,
    video_jitter_s * 1000 as video_jitter_ms,
    audio_jitter_s * 1000 as audio_jitter_ms,
    case when is_video then coalesce(video_frozen_ms, 0) end as frozen_ms,
    case when video_lost >= 0 and video_received >= 0 then video_lost end as video_lost,
    case when video_lost >= 0 and video_received >= 0 then video_lost + video_received end as video_sent,
    case when audio_lost >= 0 and audio_received >= 0 then audio_lost end as audio_lost,
    case when audio_lost >= 0 and audio_received >= 0 then audio_lost + audio_received end as audio_sent
  from differences
)
select
  bucket_ns,
  value,
  count(distinct trace_id) as connections,
  count(*) as samples,
  sum(video_sent) as video_packets,
  sum(video_lost) / nullif(sum(video_sent), 0) as video_loss_ratio,
  count(*) filter (where video_sent > 0) as video_loss_samples,
  count(*) filter (where video_lost > 0.01 * video_sent)
    / nullif(count(*) filter (where video_sent > 0), 0) as video_loss_poor_ratio,
  sum(audio_sent) as audio_packets,
  sum(audio_lost) / nullif(sum(audio_sent), 0) as audio_loss_ratio,
  count(*) filter (where audio_sent > 0) as audio_loss_samples,
  count(*) filter (where audio_lost > 0.01 * audio_sent)
    / nullif(count(*) filter (where audio_sent > 0), 0) as audio_loss_poor_ratio,
  quantile_cont(video_jitter_ms, 0.5) as video_jitter_p50_ms,
  quantile_cont(video_jitter_ms, 0.95) as video_jitter_p95_ms,
  count(video_jitter_ms) as video_jitter_samples,
  count(*) filter (where video_jitter_ms > 30) / nullif(count(video_jitter_ms), 0) as video_jitter_poor_ratio,
  quantile_cont(audio_jitter_ms, 0.95) as audio_jitter_p95_ms,
  quantile_cont(rtt_ms, 0.5) as rtt_p50_ms,
  quantile_cont(rtt_ms, 0.95) as rtt_p95_ms,
  count(rtt_ms) as rtt_samples,
  count(*) filter (where rtt_ms > 400) / nullif(count(rtt_ms), 0) as rtt_poor_ratio,
  count(frozen_ms) as video_samples,
  count(*) filter (where frozen_ms > 500) / nullif(count(frozen_ms), 0) as frozen_ratio
from measured
group by 1, 2
order by bucket_ns, value;
