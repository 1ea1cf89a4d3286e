-- How many of the attempts that timed out would have made it with another limit?
--
-- params:  since (timestamp = 24h), until (timestamp = now), limit (duration = 60s), step (text),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per step; the step `connect` is the whole way to the first video frame
-- used by: telemetry report deadline_what_if
--
-- From the Kaplan-Meier curve: who timed out after c had the chance 1 - S(limit) / S(c) to complete until `limit`.
-- That can be known only as far as anyone was watched:
-- `follow_up_ms` is the longest time that was.
-- Beyond it `would_complete` is null, and the bounds are honest: at least those expected until then, at most all.
-- `would_complete_low` and `_high` add up the 95 % intervals (Greenwood, log-log) of the single chances.
-- `would_be_cut` counts those that completed, but slower than `limit`.

with counts as (
  select
    step,
    duration_ns // 1000000 as duration_ms,
    count(*) as ended,
    count(*) filter (where ended = 'completed') as completed,
    count(*) filter (where ended = 'timed_out') as timed_out,
    count(*) filter (where ended = 'completed' and duration_ns > $limit) as cut
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
    and part is null
    and ($step is null or step = $step)
  group by 1, 2
),
at_risk as (
  select
    *,
    sum(ended) over (partition by step order by duration_ms desc) as waiting
  from counts
),
curves as (
  select
    *,
    sum(case when completed < waiting then ln(1 - completed / waiting) else -1000 end)
      over (partition by step order by duration_ms) as log_waiting,
    sum(case when completed < waiting then completed / waiting / (waiting - completed) else 0 end)
      over (partition by step order by duration_ms) as variance
  from at_risk
),
ahead as (
  select
    *,
    duration_ms * 1000000 < $limit as is_before,
    min(case when duration_ms * 1000000 <= $limit then log_waiting end) over (partition by step)
      - log_waiting as log_left,
    max(case when duration_ms * 1000000 <= $limit then variance end) over (partition by step)
      - variance as variance_left,
    max(duration_ms) over (partition by step) as follow_up_ms,
    waiting - ended as waiting_after
  from curves
),
chances as (
  select
    *,
    case
      when waiting_after = 0 or log_left <= -700 then 0
      when log_left < 0 then 1 - exp(log_left * exp(-1.9599640 * sqrt(variance_left) / -log_left))
      else 0
    end as low,
    case
      when waiting_after = 0 or follow_up_ms * 1000000 < $limit or log_left <= -700 then 1
      when log_left < 0 then 1 - exp(log_left * exp(1.9599640 * sqrt(variance_left) / -log_left))
      else 1 - exp(-3.0 / waiting_after)
    end as high
  from ahead
)
select
  step,
  $limit / 1000000.0 as limit_ms,
  sum(ended) as attempts,
  sum(completed) as completed,
  sum(timed_out) as timed_out,
  sum(case when is_before then timed_out else 0 end) as timed_out_before_limit,
  case
    when max(follow_up_ms) * 1000000 >= $limit
      then sum(case when is_before then timed_out * (1 - exp(log_left)) else 0 end)
  end as would_complete,
  sum(case when is_before then timed_out * low else 0 end) as would_complete_low,
  sum(case when is_before then timed_out * high else 0 end) as would_complete_high,
  max(follow_up_ms) as follow_up_ms,
  sum(cut) as would_be_cut
from chances
group by step
order by step;
