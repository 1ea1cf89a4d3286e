-- What are all spans of one attempt?
--
-- params:  trace_id (text)
-- returns: one row per span with every column, in the order in which they began
-- used by: telemetry session ID; the session page; capsules

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
order by start_ns, end_ns desc, span_id;
