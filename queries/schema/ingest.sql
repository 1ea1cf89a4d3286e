-- What arrived, what was stored, what was dropped or refused and why: one row per minute, transport and reason.

create view ingest as
with merged as (
select
  at_ns // 60000000000 * 60000000000 as minute_ns,
  transport,
  reason,
  sum(requests)::bigint as requests,
  sum(stored)::bigint as stored,
  sum(duplicates)::bigint as duplicates,
  sum(rejected)::bigint as rejected,
  max(example) as example,
  sum(lateness_sum_ms)::bigint as lateness_sum_ms,
  max(lateness_max_ms) as lateness_max_ms,
  sum(late)::bigint as late,
  sum(ahead)::bigint as ahead,
  max(ahead_max_ms) as ahead_max_ms
from ledger
group by 1, 2, 3
)
select
  *,
  lateness_sum_ms / nullif(stored, 0) as lateness_mean_ms
from merged;
