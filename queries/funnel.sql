-- How far do attempts get, and where are they lost on the way to the first video frame?
--
-- params:  since (timestamp = 24h), until (timestamp = now),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per step, in order; the last, Connected, means that the person's first video frame was seen
-- ratios:  reached_ratio of all_attempts, passed_ratio of attempts
-- used by: telemetry report funnel; the overview page
--
-- `attempts` entered the step; `reached_ratio` is of all attempts, `passed_ratio` of those that entered this step.
-- Who did not pass either failed, cancelled, or is unfinished (still on the way, or never heard of again).
-- `main_detail` is the most frequent detail of the failures in the step.
-- Unlike in `failure_rate`, cancelled attempts count.

with lost as (
  select
    reached_step,
    outcome,
    case when outcome = 'failed' then coalesce(detail, error_type, 'unknown') end as detail,
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
    and reached_step is not null
  group by 1, 2, 3
),
funnel as (
  select
    step_number,
    step,
    sum(case when reached_step >= step_number then attempts else 0 end) as attempts,
    sum(attempts) as all_attempts,
    sum(case when reached_step > step_number then attempts else 0 end) as passed,
    sum(case when reached_step = step_number and outcome = 'failed' then attempts else 0 end) as failed,
    sum(case when reached_step = step_number and outcome = 'cancelled' then attempts else 0 end) as cancelled,
    sum(case when reached_step = step_number and outcome = 'unfinished' then attempts else 0 end) as unfinished,
    arg_max(detail, (attempts, detail)) filter (where reached_step = step_number and outcome = 'failed') as main_detail
  from lost
  cross join (
    select 1 as step_number, 'SearchingForDigitalPerson' as step
    union all select 2, 'DownloadingAssets'
    union all select 3, 'ConnectingToDigitalPerson'
    union all select 4, 'Connected'
  ) as steps
  group by step_number, step
)
select
  step_number,
  step,
  attempts,
  all_attempts,
  attempts / all_attempts as reached_ratio,
  case when step_number < 4 then passed / nullif(attempts, 0) end as passed_ratio,
  case when step_number < 4 then attempts - passed end as lost,
  failed,
  cancelled,
  unfinished,
  main_detail
from funnel
order by step_number;
