-- Who fails more often than the others: which region, version, runtime, network, server, route or client?
--
-- params:  since (timestamp = 24h), until (timestamp = now), least (integer = 50), pairs (boolean = false),
--          error_type (text), detail (text), failing_step (text),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per value of each dimension (with `pairs`, of two at once), those that stand out first, then by lift
-- used by: telemetry report cohorts; the overview page
--
-- `failure_ratio` is failed / (connected + failed), with its Wilson 95 % interval; `rest_ratio` is that of everyone
-- else in the same dimension, and `lift` is the one over the other.
-- Unknown values are a value of their own, shown as unknown.
-- A route is known only once the media found its way, so its rows compare only attempts that came that far.
-- Values with fewer than `least` attempts are not compared and not shown.
-- `stands_out` allows for how many are compared: the chance of even one false finding is at most 5 % (|z| > sqrt(2
-- ln(values / 0.05)), a bound on Bonferroni's quantile).
-- `top_client` has the most failures of the value, `top_client_ratio` of them; without it the rate is
-- `without_top_ratio`.
-- `is_one_client` says that without it the value would no longer stand out.
-- `error_type`, `detail` and `failing_step` choose which failures to explain; other failed attempts count as attempts.

with attempts as (
  select
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
    end as failed_episode,
    count(*) as attempts
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
  group by 1, 2, 3, 4, 5, 6, 7, 8
),
by_client as (
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
    sum(attempts) as attempts,
    sum(case when failed_episode is not null then attempts else 0 end) as failed,
    count(distinct failed_episode) as failed_episodes
  from attempts
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
  group by 1, 2, 3
),
by_value as (
  select
    dimension,
    value,
    sum(attempts) as attempts,
    sum(failed) as failed,
    sum(failed_episodes) as failed_episodes,
    count(*) filter (where failed > 0) as failed_clients,
    arg_max(client, failed) filter (where failed > 0) as top_client,
    max(failed) as top_failed,
    coalesce(arg_max(attempts, failed) filter (where failed > 0), 0) as top_attempts
  from by_client
  group by 1, 2
),
rests as (
  select
    *,
    sum(attempts) over (partition by dimension) - attempts as rest_attempts,
    sum(failed) over (partition by dimension) - failed as rest_failed,
    sum(case when attempts >= $least then 1 else 0 end) over () as compared
  from by_value
),
tests as (
  select
    *,
    (failed / attempts - rest_failed / nullif(rest_attempts, 0)) / nullif(sqrt(
      (failed + rest_failed) / (attempts + rest_attempts) * (1 - (failed + rest_failed) / (attempts + rest_attempts))
      * (1.0 / attempts + 1.0 / nullif(rest_attempts, 0))), 0) as z,
    ((failed - top_failed) / nullif(attempts - top_attempts, 0) - rest_failed / nullif(rest_attempts, 0)) / nullif(sqrt(
      (failed - top_failed + rest_failed) / (attempts - top_attempts + rest_attempts)
      * (1 - (failed - top_failed + rest_failed) / (attempts - top_attempts + rest_attempts))
      * (1.0 / nullif(attempts - top_attempts, 0) + 1.0 / nullif(rest_attempts, 0))), 0) as z_without_top,
    sqrt(2 * ln(greatest(compared, 1) / 0.05)) as z_needed
  from rests
)
select
  dimension,
  value,
  attempts,
  failed,
  failed / attempts as failure_ratio,
  failed * failed / nullif(attempts, 0) / (
    failed + 1.9207294 + 1.9599640 * sqrt(failed * (attempts - failed) / nullif(attempts, 0) + 0.9603647)
  ) as failure_low_ratio,
  1 - (attempts - failed) * (attempts - failed) / nullif(attempts, 0) / (
    attempts - failed + 1.9207294 + 1.9599640 * sqrt(failed * (attempts - failed) / nullif(attempts, 0) + 0.9603647)
  ) as failure_high_ratio,
  rest_failed / nullif(rest_attempts, 0) as rest_ratio,
  failed / attempts / nullif(rest_failed / nullif(rest_attempts, 0), 0) as lift,
  coalesce(z > z_needed, false) as stands_out,
  failed_episodes,
  failed_clients,
  top_client,
  top_failed / nullif(failed, 0) as top_client_ratio,
  (failed - top_failed) / nullif(attempts - top_attempts, 0) as without_top_ratio,
  dimension <> 'client' and coalesce(z > z_needed, false)
    and not coalesce(z_without_top > z_needed, false) as is_one_client
from tests
where attempts >= $least
order by stands_out desc, is_one_client, lift desc nulls last, dimension, value;
