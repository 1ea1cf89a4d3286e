-- How long do people wait in the queue before they give up?
--
-- params:  since (timestamp = 24h), until (timestamp = now), slot (duration = 5s),
--          region (text), client_version (text), runtime (text), network_type (text), server_address (text),
--          environment (text), synthetic (boolean = false)
-- returns: one row per slot of waiting time that anyone who queued reached the end in
-- ratios:  gave_up_ratio of waiting
-- used by: telemetry report queue_patience
--
-- Of the `waiting` who were still in the queue when the slot began, `gave_up` cancelled within it, with the share's
-- Wilson 95 % interval; `admitted` got through; `turned_away` failed, by the server's limit for instance; the rest
-- waited on.

with waits as (
  select
    queue_ns // $slot as slot,
    count(*) as ended,
    count(*) filter (where outcome = 'completed') as admitted,
    count(*) filter (where outcome = 'cancelled') as gave_up,
    count(*) filter (where outcome = 'failed') as turned_away
  from steps
  where start_ns >= $since
    and start_ns < $until
    and ($region is null or region = $region)
    and ($client_version is null or client_version = $client_version)
    and ($runtime is null or runtime = $runtime)
    and ($network_type is null or network_type = $network_type)
    and ($server_address is null or server_address = $server_address)
    and ($environment is null or environment = $environment)
    and ($synthetic or synthetic is null)
    and step = 'SearchingForDigitalPerson'
    and queue_ns >= 0
    and queue_position_first is not null
  group by 1
),
at_risk as (
  select
    *,
    sum(ended) over (order by slot desc) as waiting
  from waits
)
select
  slot * $slot / 1000000000.0 as from_s,
  (slot + 1) * $slot / 1000000000.0 as to_s,
  waiting,
  admitted,
  turned_away,
  gave_up,
  gave_up / waiting as gave_up_ratio,
  gave_up * gave_up / nullif(waiting, 0) / (
    gave_up + 1.9207294 + 1.9599640 * sqrt(gave_up * (waiting - gave_up) / nullif(waiting, 0) + 0.9603647)
  ) as gave_up_low_ratio,
  1 - (waiting - gave_up) * (waiting - gave_up) / nullif(waiting, 0) / (
    waiting - gave_up + 1.9207294 + 1.9599640 * sqrt(gave_up * (waiting - gave_up) / nullif(waiting, 0) + 0.9603647)
  ) as gave_up_high_ratio
from at_risk
order by slot;
