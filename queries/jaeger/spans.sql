-- What are all spans of some traces?
--
-- params:  trace_ids (list of text)
-- returns: one row per span with every column, in the order in which they began
-- used by: Jaeger's own pages, and Grafana's Jaeger data source; the session page's last block and its downloads

select * replace (
  attributes::json::varchar as attributes,
  resource_attributes::json::varchar as resource_attributes,
  resource_entity_refs::json::varchar as resource_entity_refs,
  scope_attributes::json::varchar as scope_attributes,
  events::json::varchar as events,
  links::json::varchar as links
)
from spans
where list_contains($trace_ids, trace_id)
order by trace_id, start_ns, end_ns desc, span_id;
