-- What changed between two windows: which failures became more or less frequent?
--
-- params:  since (timestamp = 24h), until (timestamp = now), before_since (timestamp), before_until (timestamp),
--          least (integer = 50),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per failing step, reason and detail, and one of all failures together; what changed surely first
-- ratios:  before_ratio of before_attempts, after_ratio of after_attempts, difference_ratio from after_attempts
-- used by: telemetry report changes; the overview page; alert rules
--
-- Compares `since`..`until` with `before_since`..`before_until`; by default the window of equal length just before.
-- The ratios are of the attempts in each window that connected or failed; `difference_ratio` is after minus before,
-- with its 95 % interval (Newcombe's, from the two Wilson intervals).
-- `is_significant` allows for how many rows are compared: the chance of even one false finding is at most 5 %.
-- With fewer than `least` attempts in either window nothing is significant.

with attempts as (
  select
    start_ns >= $since and start_ns < $until as is_after,
    start_ns >= coalesce($before_since, 2 * $since - $until)
      and start_ns < coalesce($before_until, $since) as is_before,
    outcome = 'failed' as is_failed,
    coalesce(failing_step, 'unknown') as failing_step,
    coalesce(error_type, 'unknown') as error_type,
    coalesce(detail, 'unknown') as detail
  from connections
  where start_ns >= least(coalesce($before_since, 2 * $since - $until), $since)
    and start_ns < greatest(coalesce($before_until, $since), $until)
    and outcome in ('connected', 'failed')
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
    case when is_all then 'all' else failing_step end as failing_step,
    case when is_all then 'all' else error_type end as error_type,
    case when is_all then 'all' else detail end as detail,
    count(*) filter (where is_before) as before,
    count(*) filter (where is_after) as after,
    count(*) filter (where is_before and is_failed) as before_failed,
    count(*) filter (where is_after and is_failed) as after_failed
  from attempts
  cross join (select true as is_all union all select false) as kinds
  where is_all or is_failed
  group by 1, 2, 3
),
compared as (
  select
    *,
    max(before) over () as before_attempts,
    max(after) over () as after_attempts,
    count(*) over () as compared
  from counts
),
bounds as (  -- how far each ratio is from the ends of the range that Wilson gives it
  select
    *,
    before_failed / nullif(before_attempts, 0) as before_ratio,
    1.9207294 + 1.9599640 * sqrt(before_failed * (1 - before_ratio) + 0.9603647) as before_margin,
    before_ratio * before_margin / (before_failed + before_margin) as before_below,
    (1 - before_ratio) * before_margin / (before_attempts - before_failed + before_margin) as before_above,
    after_failed / nullif(after_attempts, 0) as after_ratio,
    1.9207294 + 1.9599640 * sqrt(after_failed * (1 - after_ratio) + 0.9603647) as after_margin,
    after_ratio * after_margin / (after_failed + after_margin) as after_below,
    (1 - after_ratio) * after_margin / (after_attempts - after_failed + after_margin) as after_above,
    after_ratio - before_ratio as difference_ratio,
    (before_failed + after_failed) / (before_attempts + after_attempts) as ratio,
    sqrt(ratio * (1 - ratio) * (1.0 / nullif(before_attempts, 0) + 1.0 / nullif(after_attempts, 0))) as deviation
  from compared
)
select
  failing_step,
  error_type,
  detail,
  before_failed,
  before_attempts,
  before_ratio,
  after_failed,
  after_attempts,
  after_ratio,
  difference_ratio,
  difference_ratio - sqrt(after_below * after_below + before_above * before_above) as difference_low_ratio,
  difference_ratio + sqrt(after_above * after_above + before_below * before_below) as difference_high_ratio,
  before_attempts >= $least and after_attempts >= $least
    and coalesce(abs(difference_ratio) > sqrt(2 * ln(compared / 0.05)) * deviation, false) as is_significant
from bounds
order by
  is_significant desc,
  abs(difference_ratio) desc nulls last,
  error_type = 'all' desc,
  failing_step,
  error_type,
  detail;
