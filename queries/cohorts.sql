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
rated as (
  select
    *,
    count(failed_episode) over (partition by hour) / count(*) over (partition by hour) as expected,
    count(case when route is not null then failed_episode end) over (partition by hour)
      / nullif(count(route) over (partition by hour), 0) as expected_of_route
  from attempts
),
by_attributes as (
  select
    region,
    client_version,
    runtime,
    network_type,
    server_address,
    route,
    client,
    failed_episode,
    count(*) as attempts,
    sum(expected) as expected,
    sum(expected_of_route) as expected_of_route
  from rated
  group by 1, 2, 3, 4, 5, 6, 7, 8
),
by_episode as (
  select
    dimension,
    case dimension
      when 'region' then region
      when 'client_version' then client_version
      when 'runtime' then runtime
      when 'network_type' then network_type
      when 'server_address' then server_address
      when 'route' then route
      when 'client' then client
      when 'region, client_version' then concat(region, ', ', client_version)
      when 'region, network_type' then concat(region, ', ', network_type)
      when 'client_version, network_type' then concat(client_version, ', ', network_type)
      when 'client_version, runtime' then concat(client_version, ', ', runtime)
    end as value,
    client,
    failed_episode,
    sum(attempts) as attempts,
    sum(case when dimension = 'route' then expected_of_route else expected end) as expected
  from by_attributes
  cross join (
    select 'region' as dimension, false as is_pair
    union all select 'client_version', false
    union all select 'runtime', false
    union all select 'network_type', false
    union all select 'server_address', false
    union all select 'route', false
    union all select 'client', false
    union all select 'region, client_version', true
    union all select 'region, network_type', true
    union all select 'client_version, network_type', true
    union all select 'client_version, runtime', true
  ) as dimensions
  where (not is_pair or $pairs) and (dimension <> 'route' or route is not null)
  group by 1, 2, 3, 4
),
by_client as (
  select
    dimension,
    value,
    client,
    sum(attempts) as attempts,
    sum(expected) as expected,
    sum(case when failed_episode is not null then attempts else 0 end) as failed,
    count(failed_episode) as failed_episodes
  from by_episode
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
    max(failed) as top_failed,
    coalesce(arg_max(attempts, (failed, client)) filter (where failed > 0), 0) as top_attempts,
    coalesce(arg_max(expected, (failed, client)) filter (where failed > 0), 0) as top_expected
  from by_client
  group by 1, 2
),
others as (
  select
    *,
    sum(attempts) over (partition by dimension) - attempts as rest_attempts,
    sum(failed) over (partition by dimension) - failed as rest_failed,
    ln(sum(case when attempts >= $least then 1 else 0 end) over () / 0.05) as least_evidence,
    attempts - top_attempts as other_attempts,
    failed - top_failed as other_failed,
    expected - top_expected as other_expected
  from by_value
),
tests as (
  select
    *,
    failed > expected
      and failed * ln(greatest(1.0 * failed, 0.000001) / greatest(expected, 0.000001))
        + (attempts - failed)
          * ln(greatest(1.0 * (attempts - failed), 0.000001) / greatest(attempts - expected, 0.000001))
      > least_evidence as stands_out,
    other_failed > other_expected
      and other_failed * ln(greatest(1.0 * other_failed, 0.000001) / greatest(other_expected, 0.000001))
        + (other_attempts - other_failed)
          * ln(greatest(1.0 * (other_attempts - other_failed), 0.000001)
            / greatest(other_attempts - other_expected, 0.000001))
      > least_evidence as others_stand_out
  from others
  where attempts >= $least
)
select
  dimension,
  value,
  attempts,
  failed,
  expected,
  failed / attempts as failure_ratio,
  failed * failed / nullif(attempts, 0) / (
    failed + 1.9207294 + 1.9599640 * sqrt(failed * (attempts - failed) / nullif(attempts, 0) + 0.9603647)
  ) as failure_low_ratio,
  1 - (attempts - failed) * (attempts - failed) / nullif(attempts, 0) / (
    attempts - failed + 1.9207294 + 1.9599640 * sqrt(failed * (attempts - failed) / nullif(attempts, 0) + 0.9603647)
  ) as failure_high_ratio,
  rest_attempts,
  rest_failed / nullif(rest_attempts, 0) as rest_ratio,
  failed / attempts / nullif(rest_failed / nullif(rest_attempts, 0), 0) as lift,
  stands_out,
  failed_episodes,
  failed_clients,
  top_client,
  top_failed / nullif(failed, 0) as top_client_ratio,
  other_attempts as without_top_attempts,
  other_failed / nullif(other_attempts, 0) as without_top_ratio,
  dimension <> 'client' and stands_out and not others_stand_out as is_one_client
from tests
order by stands_out desc, is_one_client, lift desc nulls last, dimension, value;
