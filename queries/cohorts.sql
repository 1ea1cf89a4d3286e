-- Who fails more often than the others: which region, version, runtime, network, server, route or client?
--
-- params:  since (timestamp = 24h), until (timestamp = now), least (integer = 50), pairs (boolean = false),
--          error_type (text), detail (text), failing_step (text),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per value of each dimension (with `pairs`, of two at once), those that stand out first, then by lift
-- ratios:  failure_ratio of attempts, rest_ratio of rest_attempts, top_client_ratio of failed,
--          without_top_ratio of without_top_attempts
-- used by: telemetry report cohorts; the overview page
--
-- `failure_ratio` is failed / (connected + failed), with its Wilson 95 % interval; `rest_ratio` is that of everyone
-- else in the same dimension, and `lift` is the one over the other.
-- `expected` failures are those at the rate of everyone in the same hours, so that a bad hour is blamed on nobody.
-- `stands_out` means that so many more than expected are no chance, with allowance for how many values are compared:
-- by Hoeffding's bound, all comparisons together find anything false at most one time in twenty.
-- Unknown values are a value of their own, shown as unknown.
-- A route is known only once the media found its way, so its rows compare only attempts that came that far.
-- Values with fewer than `least` attempts are not compared and not shown.
-- `top_client` has the most failures of the value, `top_client_ratio` of them; without it the rate is
-- `without_top_ratio`, and `is_one_client` says that the value would no longer stand out.
-- `error_type`, `detail` and `failing_step` choose which failures to explain; other failed attempts count as attempts.

with attempts as (
  select
    start_ns // 3600000000000 as hour,
    coalesce(region, 'unknown') as region,
    coalesce(client_version, 'unknown') as client_version,
    coalesce(runtime, 'unknown') as runtime,
    coalesce(network_type, 'unknown') as network_type,
    coalesce(server_address, 'unknown') as server_address,
    case when relay then 'relay' when not relay then 'direct' end as route,
    coalesce(service_instance_id, 'unknown') as client,
    case
      when outcome = 'failed'
        and ($error_type is null or error_type = $error_type)
        and ($detail is null or detail = $detail)
        and ($failing_step is null or failing_step = $failing_step)
        then coalesce(episode_id, attempt_id)
    end as failed_episode
  from connections
  where start_ns >= $since
    and start_ns < $until
    and ($region is null or region = $region)
    and ($client_version is null or client_version = $client_version)
    and ($runtime is null or runtime = $runtime)
    and ($network_type is null or network_type = $network_type)
    and ($server_address is null or server_address = $server_address)
    and ($environment is null or environment = $environment)
    and ($synthetic or synthetic is null)
    and outcome in ('connected', 'failed')
),
hours as (
  select
    hour,
    count(failed_episode) / count(*) as ratio,
    count(case when route is not null then failed_episode end) / nullif(count(route), 0) as route_ratio
  from attempts
  group by 1
),
clients as (  -- that can be shown: all others are counted as one, without a name
  select client
  from attempts
  group by 1
  having count(failed_episode) > 0 or count(*) >= $least
),
by_attributes as (
  select
    clients.client as client,
    failed_episode,
    count(*) as attempts,
    sum(ratio) as expected,
    sum(route_ratio) as expected_of_route,
    unnest([
      struct_pack(dimension := 'region', value := region),
      struct_pack(dimension := 'client_version', value := client_version),
      struct_pack(dimension := 'runtime', value := runtime),
      struct_pack(dimension := 'network_type', value := network_type),
      struct_pack(dimension := 'server_address', value := server_address),
      struct_pack(dimension := 'route', value := route),
      struct_pack(dimension := 'client', value := clients.client),
      struct_pack(dimension := 'region, client_version',
        value := case when $pairs then concat(region, ', ', client_version) end),
      struct_pack(dimension := 'region, network_type',
        value := case when $pairs then concat(region, ', ', network_type) end),
      struct_pack(dimension := 'client_version, network_type',
        value := case when $pairs then concat(client_version, ', ', network_type) end),
      struct_pack(dimension := 'client_version, runtime',
        value := case when $pairs then concat(client_version, ', ', runtime) end)
    ]) as its
  from attempts
  join hours on attempts.hour = hours.hour
  left join clients on attempts.client = clients.client
  group by clients.client, failed_episode, region, client_version, runtime, network_type, server_address, route
),
by_client as (
  select
    its.dimension as dimension,
    its.value as value,
    client,
    sum(attempts) as attempts,
    sum(case when failed_episode is not null then attempts else 0 end) as failed,
    sum(case when its.dimension = 'route' then expected_of_route else expected end) as expected,
    count(distinct failed_episode) filter (where failed_episode is not null) as failed_episodes
  from by_attributes
  where its.value is not null or its.dimension = 'client'
  group by 1, 2, 3
),
by_value as (
  select
    dimension,
    value,
    sum(attempts) as attempts,
    sum(failed) as failed,
    sum(expected) as expected,
    sum(failed_episodes) as failed_episodes,
    count(*) filter (where failed > 0) as failed_clients,
    arg_max(client, (failed, client)) filter (where failed > 0) as top_client,
    sum(attempts) - coalesce(arg_max(attempts, (failed, client)) filter (where failed > 0), 0) as other_attempts,
    sum(failed) - max(failed) as other_failed,
    sum(expected) - coalesce(arg_max(expected, (failed, client)) filter (where failed > 0), 0) as other_expected
  from by_client
  group by 1, 2
),
compared as (
  select
    *,
    sum(attempts) over (partition by dimension) - attempts as rest_attempts,
    sum(failed) over (partition by dimension) - failed as rest_failed,
    ln(sum(case when value is not null and attempts >= $least then 1 else 0 end) over () / 0.05) as least_evidence
  from by_value
),
tests as (
  select
    *,
    failed / attempts as failure_ratio,
    rest_failed / nullif(rest_attempts, 0) as rest_ratio,
    1.9207294 + 1.9599640 * sqrt(failed * (1 - failure_ratio) + 0.9603647) as margin,
    failed > expected
      and coalesce(failed * ln(nullif(failed, 0) / expected), 0)
        + coalesce((attempts - failed) * ln(nullif(attempts - failed, 0) / (attempts - expected)), 0)
      > least_evidence as stands_out,
    other_failed > other_expected
      and coalesce(other_failed * ln(nullif(other_failed, 0) / other_expected), 0)
        + coalesce((other_attempts - other_failed)
          * ln(nullif(other_attempts - other_failed, 0) / (other_attempts - other_expected)), 0)
      > least_evidence as others_stand_out
  from compared
  where value is not null and attempts >= $least
)
select
  dimension,
  value,
  attempts,
  failed,
  expected,
  failure_ratio,
  failure_ratio * failed / (failed + margin) as failure_low_ratio,
  1 - (1 - failure_ratio) * (attempts - failed) / (attempts - failed + margin) as failure_high_ratio,
  rest_attempts,
  rest_ratio,
  failure_ratio / nullif(rest_ratio, 0) as lift,
  stands_out,
  failed_episodes,
  failed_clients,
  top_client,
  (failed - other_failed) / nullif(failed, 0) as top_client_ratio,
  other_attempts as without_top_attempts,
  other_failed / nullif(other_attempts, 0) as without_top_ratio,
  dimension <> 'client' and stands_out and not others_stand_out as is_one_client
from tests
order by stands_out desc, is_one_client, lift desc nulls last, dimension, value;
