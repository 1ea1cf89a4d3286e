-- What share of the attempts to connect fails, and for which reason?
--
-- params:  since (timestamp = 24h), until (timestamp = now), now (timestamp = now), bucket (duration = 1h),
--          by (text = all | reason | detail | step | part | owner),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per time bucket and failing reason, detail, step, part or owner; with `by` all one row per bucket
-- ratios:  failure_ratio of ended, service_failure_ratio of service_ended, lost_ratio of attempts
-- used by: telemetry report failure_rate; the overview page; alert rules
--
-- The rate is failed / (connected + failed), with its Wilson 95 % interval.
-- Cancelled attempts, unfinished ones and probes stand beside it and are not in it.
-- `service_failure_ratio` leaves out attempts that failed for the user's own reasons, above and below the line.
-- `lost_ratio` is the telemetry-loss rate: attempts that began, never ended, and have been silent for three minutes.
-- With `by`, each row's rate is over all attempts of its bucket; a reason that is absent did not occur.

with attempts as (
  select
    greatest(start_ns // $bucket * $bucket, $since) as bucket_ns,
    case
      when $by = 'all' then 'all'
      when outcome <> 'failed' or not ($synthetic or synthetic is null) then null
      when $by = 'reason' then coalesce(error_type, 'unknown')
      when $by = 'detail' then coalesce(detail, 'unknown')
      when $by = 'step' then coalesce(failing_step, 'unknown')
      when $by = 'part' then coalesce(failing_part, 'between parts')
      else owner
    end as value,
    $synthetic or synthetic is null as is_person,
    outcome,
    outcome = 'failed' and owner = 'user' as is_users,
    outcome = 'unfinished' and last_seen_ns < $now - 180000000000 as is_lost
  from verdicts
  where start_ns >= $since
    and start_ns < $until
    and ($region is null or region = $region)
    and ($client_version is null or client_version = $client_version)
    and ($runtime is null or runtime = $runtime)
    and ($network_type is null or network_type = $network_type)
    and ($server_address is null or server_address = $server_address)
    and ($environment is null or environment = $environment)
),
counts as (
  select
    bucket_ns,
    value,
    count(*) filter (where is_person) as attempts,
    count(*) filter (where is_person and outcome in ('connected', 'failed')) as ended,
    count(*) filter (where is_person and outcome = 'failed') as failed,
    count(*) filter (where is_person and outcome = 'cancelled') as cancelled,
    count(*) filter (where is_person and outcome = 'unfinished') as unfinished,
    count(*) filter (where is_person and is_lost) as lost,
    count(*) filter (where is_person and is_users) as users,
    count(*) filter (where not is_person) as probes
  from attempts
  group by 1, 2
),
rates as (
  select
    bucket_ns,
    value,
    failed,
    sum(attempts) over (partition by bucket_ns) as attempts,
    sum(ended) over (partition by bucket_ns) as ended,
    sum(cancelled) over (partition by bucket_ns) as cancelled,
    sum(unfinished) over (partition by bucket_ns) as unfinished,
    sum(lost) over (partition by bucket_ns) as lost,
    sum(users) over (partition by bucket_ns) as users,
    sum(failed) over (partition by bucket_ns) as all_failed,
    sum(probes) over (partition by bucket_ns) as probes
  from counts
)
select
  bucket_ns,
  value,
  attempts,
  ended,
  failed,
  failed / nullif(ended, 0) as failure_ratio,
  failed * failed / nullif(ended, 0) / (
    failed + 1.9207294 + 1.9599640 * sqrt(failed * (ended - failed) / nullif(ended, 0) + 0.9603647)
  ) as failure_low_ratio,
  1 - (ended - failed) * (ended - failed) / nullif(ended, 0) / (
    ended - failed + 1.9207294 + 1.9599640 * sqrt(failed * (ended - failed) / nullif(ended, 0) + 0.9603647)
  ) as failure_high_ratio,
  ended - users as service_ended,
  (all_failed - users) / nullif(ended - users, 0) as service_failure_ratio,
  cancelled,
  unfinished,
  lost / nullif(attempts, 0) as lost_ratio,
  probes
from rates
where $by = 'all' or value is not null
order by bucket_ns, failed desc, value;
