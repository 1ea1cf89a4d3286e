-- Why do sessions end, who ended them, and how long had they lasted?
--
-- params:  since (timestamp = 24h), until (timestamp = now), bucket (duration = all),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per time bucket, reason, side that ended it and detail
-- ratios:  sessions_ratio of ended
-- used by: telemetry report disconnects; the overview page
--
-- Counts connections that had been connected and ended in the range.
-- A lost connection is noticed late, by the client's limit for silent media: its end is dated back to the last media
-- that arrived, and `detection_p50_ms` says how far.
-- `sessions_ratio` is of all ends in the same bucket; with reason connectionLost it is the connection-lost rate.

with ends as (
  select
    coalesce(disconnect_reason, 'unknown') as disconnect_reason,
    ended_by,
    disconnect_detail,
    case
      when disconnect_reason = 'connectionLost'
        then greatest(disconnected_ns - coalesce(media_last_seen_ago_ms, 0) * 1000000, connected_ns)
      else disconnected_ns
    end as ended_ns,
    case when disconnect_reason = 'connectionLost' then media_last_seen_ago_ms end as detection_ms,
    connected_ns
  from connections
  where disconnected_ns >= $since
    and disconnected_ns < $until + 600000000000
    and connected_ns is not null
    and ($region is null or region = $region)
    and ($client_version is null or client_version = $client_version)
    and ($runtime is null or runtime = $runtime)
    and ($network_type is null or network_type = $network_type)
    and ($server_address is null or server_address = $server_address)
    and ($environment is null or environment = $environment)
    and ($synthetic or synthetic is null)
),
counts as (
  select
    greatest(ended_ns // $bucket * $bucket, $since) as bucket_ns,
    disconnect_reason,
    ended_by,
    disconnect_detail,
    count(*) as sessions,
    quantile_cont((ended_ns - connected_ns) / 1000000000.0, 0.5)
      filter (where ended_ns >= connected_ns) as length_p50_s,
    quantile_cont((ended_ns - connected_ns) / 1000000000.0, 0.95)
      filter (where ended_ns >= connected_ns) as length_p95_s,
    quantile_cont(detection_ms, 0.5) as detection_p50_ms
  from ends
  where ended_ns >= $since and ended_ns < $until
  group by 1, 2, 3, 4
)
select
  bucket_ns,
  disconnect_reason,
  ended_by,
  disconnect_detail,
  sessions,
  sum(sessions) over (partition by bucket_ns) as ended,
  sessions / sum(sessions) over (partition by bucket_ns) as sessions_ratio,
  length_p50_s,
  length_p95_s,
  detection_p50_ms
from counts
order by bucket_ns, sessions desc, disconnect_reason, ended_by, disconnect_detail;
