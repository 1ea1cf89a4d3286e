-- Which names do the spans of a service have?
--
-- params:  service (text)
-- returns: one row per name
-- used by: Jaeger's own pages, and Grafana's Jaeger data source

select distinct name as operation
from spans
where service_name = $service
order by operation;
