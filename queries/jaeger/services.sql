-- Which services sent spans?
--
-- params:  none
-- returns: one row per service
-- used by: Jaeger's own pages, and Grafana's Jaeger data source

select distinct service_name as service
from spans
where service_name is not null
order by service;
