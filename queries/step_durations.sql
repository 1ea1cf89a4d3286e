-- How long does each step take, when those who timed out count as slow?
--
-- params:  since (timestamp = 24h), until (timestamp = now), bucket (duration = 1h),
--          step (text), parts (boolean = false),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per time bucket and step (and part); the step `connect` is the whole way to the first video frame
-- ratios:  completed_ratio of attempts, failed_ratio of attempts, timed_out_ratio of attempts,
--          cancelled_ratio of attempts
-- used by: telemetry report step_durations; the overview page; alert rules
--
-- `p50_ms`, `p95_ms` and `p99_ms` are Kaplan-Meier: who timed out, failed, gave up or vanished is known to have waited
-- that long, and counts as waiting until then.
-- They say how long the step takes for someone who waits for it.
-- Null means that it was never reached: too many ended otherwise before.
-- `naive_p50_ms` and so on are the usual figures, over completed times alone: they leave the slowest out.
-- `completed_ratio`, `failed_ratio`, `timed_out_ratio` and `cancelled_ratio` say what becomes of those who begin.
-- Times are counted in whole milliseconds.
-- A step belongs to the bucket in which it began.

with counts as (
  select
    greatest(start_ns // $bucket * $bucket, $since) as bucket_ns,
    step,
    part,
    duration_ns // 1000000 as duration_ms,
    count(*) as ended,
    count(*) filter (where ended = 'completed') as completed,
    count(*) filter (where ended = 'failed') as failed,
    count(*) filter (where ended = 'timed_out') as timed_out,
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
    and ($step is null or step = $step)
    and ($parts or part is null)
  group by 1, 2, 3, 4
),
at_risk as (
  select
    *,
    sum(cast(ended as double)) over (partition by bucket_ns, step, part)
      - sum(cast(ended as double)) over (
        partition by bucket_ns, step, part order by duration_ms rows between unbounded preceding and current row
      ) + ended as waiting,
    sum(cast(completed as double)) over (
      partition by bucket_ns, step, part order by duration_ms rows between unbounded preceding and current row
    ) as completed_so_far,
    sum(cast(completed as double)) over (partition by bucket_ns, step, part) as completed_in_all
  from counts
),
curves as (
  select
    *,
    exp(sum(case when completed < waiting then ln(1 - completed / waiting) else -1000 end) over (
      partition by bucket_ns, step, part order by duration_ms rows between unbounded preceding and current row
    )) - 0.000000001 as still_waiting_ratio,
    completed_so_far / nullif(completed_in_all, 0) + 0.000000001 as naive_ratio
  from at_risk
)
select
  bucket_ns,
  step,
  part,
  sum(ended) as attempts,
  sum(completed) as completed,
  min(duration_ms) filter (where completed > 0 and still_waiting_ratio <= 0.5) as p50_ms,
  min(duration_ms) filter (where completed > 0 and still_waiting_ratio <= 0.05) as p95_ms,
  min(duration_ms) filter (where completed > 0 and still_waiting_ratio <= 0.01) as p99_ms,
  min(duration_ms) filter (where naive_ratio >= 0.5) as naive_p50_ms,
  min(duration_ms) filter (where naive_ratio >= 0.95) as naive_p95_ms,
  min(duration_ms) filter (where naive_ratio >= 0.99) as naive_p99_ms,
  sum(completed) / sum(ended) as completed_ratio,
  sum(failed) / sum(ended) as failed_ratio,
  sum(timed_out) / sum(ended) as timed_out_ratio,
  sum(cancelled) / sum(ended) as cancelled_ratio,
  max(duration_ms) as longest_ms
from curves
group by 1, 2, 3
order by bucket_ns, step, part nulls first;
