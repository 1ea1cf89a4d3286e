-- One row per attempt and id that names it: its own, its session's, its episode's and its trace's.
--
-- Look one up with `where id_hash = md5_number_lower($id) % 4294967296 group by trace_id having bool_or(id = $id)`, or
-- several with a list of numbers: the store keeps when the attempt began that an id names, in the order of the hashes,
-- and reads one row group of the twenty million ids of 100 million spans.
--
-- On a cluster the times of a session's or episode's row may be less than its attempt's, and are always within them:
-- who wants the attempt's own asks `connections` for what overlaps.

create view ids as
select
  md5_number_lower(trace_id) % 4294967296 as id_hash,
  trace_id as id,
  'trace' as kind,
  trace_id,
  start_ns,
  last_seen_ns
from connections
union all
select
  md5_number_lower(attempt_id) % 4294967296 as id_hash,
  attempt_id as id,
  'attempt' as kind,
  trace_id,
  start_ns,
  last_seen_ns
from connections
union all
select
  md5_number_lower(session_id) % 4294967296 as id_hash,
  session_id as id,
  'session' as kind,
  trace_id,
  start_ns,
  last_seen_ns
from connections
where session_id is not null
union all
select
  md5_number_lower(episode_id) % 4294967296 as id_hash,
  episode_id as id,
  'episode' as kind,
  trace_id,
  start_ns,
  last_seen_ns
from connections
where episode_id is not null;
