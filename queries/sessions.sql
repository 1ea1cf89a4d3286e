-- How many sessions came to be, how long did they live, and were lost ones picked up again?
--
-- params:  since (timestamp = 24h), until (timestamp = now), bucket (duration = 1d),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per time bucket, by the session's first attempt
-- used by: telemetry report sessions
--
-- One sessionId is one session, however many connections it had.
-- `live_p50_s` adds up the connected time of all of them.
-- `accepted` sessions were given an id; `connected` ones were seen at least once; `reconnected` ones more than once.

select
  greatest(start_ns // $bucket * $bucket, $since) as bucket_ns,
  count(*) as accepted,
  count(connected_ns) as connected,
  count(connected_ns) / count(*) as connected_ratio,
  sum(connections) as connections,
  count(*) filter (where connected > 1) as reconnected,
  sum(resumed) as resumed,
  quantile_cont(connected_for_ns / 1000000000.0, 0.5) as live_p50_s,
  quantile_cont(connected_for_ns / 1000000000.0, 0.95) as live_p95_s,
  count(*) filter (where last_disconnect_reason = 'normal') as ended_normal,
  count(*) filter (where last_disconnect_reason = 'sessionTimeout') as ended_session_timeout,
  count(*) filter (where last_disconnect_reason = 'connectionLost') as ended_connection_lost,
  count(*) filter (where connected_ns is not null and last_disconnect_reason is null) as not_ended
from sessions
where start_ns >= $since
  and start_ns < $until
  and ($region is null or region = $region)
  and ($client_version is null or client_version = $client_version)
  and ($runtime is null or runtime = $runtime)
  and ($network_type is null or network_type = $network_type)
  and ($server_address is null or server_address = $server_address)
  and ($environment is null or environment = $environment)
  and ($synthetic or synthetic is null)
group by 1
order by bucket_ns;
