-- What are all spans of one attempt?
--
-- params:  trace_id (text), since (timestamp or null), until (timestamp or null)
-- returns: one row per span with every column, in the order in which they began
-- used by: telemetry session ID; the session page; capsules
--
-- Spans are kept in the order of time: without times, every trace id in the store is compared.

select * replace (
  attributes::json::varchar as attributes,
  resource_attributes::json::varchar as resource_attributes,
  resource_entity_refs::json::varchar as resource_entity_refs,
  scope_attributes::json::varchar as scope_attributes,
  events::json::varchar as events,
  links::json::varchar as links
)
from spans
where trace_id = $trace_id
  and ($since is null or start_ns >= $since)
  and ($until is null or start_ns < $until)
order by start_ns, end_ns desc, span_id;
