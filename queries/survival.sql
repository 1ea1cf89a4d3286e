-- Of those who begin a step, how many still wait after each second, and what has become of the others?
--
-- params:  since (timestamp = 24h), until (timestamp = now),
--          step (text = connect | SearchingForDigitalPerson | DownloadingAssets | ConnectingToDigitalPerson),
--          part (text), resolution (duration = 100ms),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per stretch of `resolution` in which anything happened, as things stood at its end
-- ratios:  waiting_ratio from waiting, completed_ratio from attempts, failed_ratio from attempts,
--          cancelled_ratio from attempts
-- used by: telemetry report survival
--
-- `waiting_ratio` is the Kaplan-Meier curve with its 95 % interval (Greenwood, log-log): the chance to wait longer
-- than `after_ms`, for someone who neither gives up nor fails.
-- Who timed out or vanished leaves the count at that moment.
-- `completed_ratio`, `failed_ratio` and `cancelled_ratio` treat failing and giving up as competing risks
-- (Aalen-Johansen): what has really become, by then, of those who began.

with counts as (
  select
    duration_ns // 1000000 as duration_ms,
    count(*) as ended,
    count(*) filter (where ended = 'completed') as completed,
    count(*) filter (where ended = 'failed') as failed,
    count(*) filter (where ended = 'cancelled') as cancelled
  from durations
  where start_ns >= $since
    and start_ns < $until
    and ($region is null or region = $region)
    and ($client_version is null or client_version = $client_version)
    and ($runtime is null or runtime = $runtime)
    and ($network_type is null or network_type = $network_type)
    and ($server_address is null or server_address = $server_address)
    and ($environment is null or environment = $environment)
    and ($synthetic or synthetic is null)
    and duration_ns >= 0
    and step = $step
    and (part = $part or (part is null and $part is null))
  group by 1
),
at_risk as (
  select
    *,
    completed + failed + cancelled as decided,
    sum(ended) over (order by duration_ms desc) as waiting,
    sum(ended) over () as began
  from counts
),
curves as (
  select
    *,
    sum(case when completed < waiting then ln(1 - completed / waiting) else -1000 end)
      over (order by duration_ms) as log_waiting,
    sum(case when completed < waiting then completed / waiting / (waiting - completed) else 0 end)
      over (order by duration_ms) as variance,
    exp(coalesce(sum(case when decided < waiting then ln(1 - decided / waiting) else -1000 end)
      over (order by duration_ms rows between unbounded preceding and 1 preceding), 0)) as undecided_before
  from at_risk
),
fates as (
  select
    *,
    sum(undecided_before * completed / waiting) over (order by duration_ms) as completed_ratio,
    sum(undecided_before * failed / waiting) over (order by duration_ms) as failed_ratio,
    sum(undecided_before * cancelled / waiting) over (order by duration_ms) as cancelled_ratio
  from curves
),
steps_of_curve as (
  select
    max(duration_ms) as after_ms,
    max(waiting) as waiting,
    max(began) as attempts,
    min(log_waiting) as log_waiting,
    max(variance) as variance,
    max(completed_ratio) as completed_ratio,
    max(failed_ratio) as failed_ratio,
    max(cancelled_ratio) as cancelled_ratio
  from fates
  group by duration_ms * 1000000 // $resolution
)
select
  after_ms,
  waiting,
  attempts,
  exp(log_waiting) as waiting_ratio,
  case
    when log_waiting < 0 and log_waiting > -700
      then exp(log_waiting * exp(1.9599640 * sqrt(variance) / -log_waiting))
  end as waiting_low_ratio,
  case
    when log_waiting < 0 and log_waiting > -700
      then exp(log_waiting * exp(1.9599640 * sqrt(variance) / log_waiting))
  end as waiting_high_ratio,
  completed_ratio,
  failed_ratio,
  cancelled_ratio
from steps_of_curve
order by after_ms;
