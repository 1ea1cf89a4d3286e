-- Is the telemetry itself arriving: in time, once, and whole?
--
-- params:  since (timestamp = 24h), until (timestamp = now), bucket (duration = 1h)
-- returns: one row per time bucket, transport and reason; the reason `accepted` counts what was taken
-- ratios:  duplicates_ratio of arrived, late_ratio of stored, ahead_ratio of stored
-- used by: telemetry report ingest_health; alert rules
--
-- Time is that of the receiver's clock, as spans arrived.
-- `rejected` spans were refused for the row's reason; senders do not read that answer, so it is kept here.
-- `duplicates` were there already: a sender tried again, and nothing was lost.
-- Late means that a span arrived more than a minute after it ended; ahead, that it ended more than a second after it
-- arrived: its sender's clock is wrong.

select
  greatest(minute_ns // $bucket * $bucket, $since) as bucket_ns,
  transport,
  reason,
  sum(requests) as requests,
  sum(stored) as stored,
  sum(duplicates) as duplicates,
  sum(rejected) as rejected,
  sum(stored) + sum(duplicates) as arrived,
  sum(duplicates) / nullif(sum(stored) + sum(duplicates), 0) as duplicates_ratio,
  sum(late) / nullif(sum(stored), 0) as late_ratio,
  sum(ahead) / nullif(sum(stored), 0) as ahead_ratio,
  sum(lateness_sum_ms) / nullif(sum(stored), 0) as lateness_mean_ms,
  max(lateness_max_ms) as lateness_max_ms,
  max(ahead_max_ms) as ahead_max_ms,
  max(example) as example
from ingest
where minute_ns >= $since // 60000000000 * 60000000000
  and minute_ns < $until
group by 1, 2, 3
order by bucket_ns, transport, reason;
