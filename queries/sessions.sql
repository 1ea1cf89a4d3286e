-- How many sessions came to be, how long did they live, and were lost ones picked up again?
--
-- params:  since (timestamp = 24h), until (timestamp = now), bucket (duration = 1d),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per time bucket, by the session's first attempt
-- ratios:  connected_ratio of accepted
-- used by: telemetry report sessions
--
-- One sessionId is one session, however many connections it had up to a day before and after the range.
-- `live_p50_s` adds up the connected time of all of them; times that a clock set back made negative are left out.
-- `accepted` sessions were given an id; `connected` ones were seen at least once; `reconnected` ones more than once.

with lives as (
  select
    session_id,
    count(*) as connections,
    count(*) filter (where outcome = 'connected') as connected,
    count(*) filter (where resumed) as resumed,
    min(start_ns) as start_ns,
    min(connected_ns) as connected_ns,
    sum(disconnected_ns - connected_ns) as connected_for_ns,
    arg_max(disconnect_reason, start_ns) filter (where disconnect_reason is not null) as last_disconnect_reason,
    max(region) as region,
    max(client_version) as client_version,
    max(runtime) as runtime,
    max(network_type) as network_type,
    max(server_address) as server_address,
    max(environment) as environment,
    max(synthetic) as synthetic
  from connections
  where start_ns >= $since - 86400000000000
    and start_ns < $until + 86400000000000
    and session_id is not null
  group by 1
)
select
  greatest(start_ns // $bucket * $bucket, $since) as bucket_ns,
  count(*) as accepted,
  count(connected_ns) as connected,
  count(connected_ns) / count(*) as connected_ratio,
  sum(connections) as connections,
  count(*) filter (where connected > 1) as reconnected,
  sum(resumed) as resumed,
  quantile_cont(connected_for_ns / 1000000000.0, 0.5) filter (where connected_for_ns >= 0) as live_p50_s,
  quantile_cont(connected_for_ns / 1000000000.0, 0.95) filter (where connected_for_ns >= 0) as live_p95_s,
  count(*) filter (where last_disconnect_reason = 'normal') as ended_normal,
  count(*) filter (where last_disconnect_reason = 'sessionTimeout') as ended_session_timeout,
  count(*) filter (where last_disconnect_reason = 'connectionLost') as ended_connection_lost,
  count(*) filter (where connected_ns is not null and last_disconnect_reason is null) as not_ended
from lives
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
