-- Which traces of a service have a span that fits?
--
-- params:  service (text), operation (text or null), since, until (timestamp), min_ns, max_ns (integer or null),
--          session_id, attempt_id, error_type (text or null), failed (boolean or null), limit (integer)
-- returns: one row per trace, the latest first
-- used by: Jaeger's own pages, and Grafana's Jaeger data source

select trace_id
from spans
where service_name = $service
  and start_ns >= $since
  and start_ns < $until
  and ($operation is null or name = $operation)
  and ($min_ns is null or end_ns - start_ns >= $min_ns)
  and ($max_ns is null or end_ns - start_ns <= $max_ns)
  and ($session_id is null or session_id = $session_id)
  and ($attempt_id is null or attempt_id = $attempt_id)
  and ($error_type is null or error_type = $error_type)
  and ($failed is null or (status_code = 'ERROR') = $failed)
group by trace_id
order by max(start_ns) desc, trace_id
limit $limit;
