-- What is known of these attempts, all that a verdict may read?
--
-- params:  attempt_ids (list of text), since (timestamp), until (timestamp)
-- returns: one row per attempt that began in the range
-- used by: the overview page, for the verdict of each attempt in its lists

select *
from connections
where start_ns >= $since
  and start_ns <= $until
  and list_contains($attempt_ids, attempt_id)
order by attempt_id
limit 1000;
