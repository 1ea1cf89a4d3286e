-- What the receiver was given, one row per commit and transport, and one per reason for which anything was refused.
--
-- Senders never read OTLP's `partial_success`, so whatever is refused must be written down here.
-- Not for reports: they read `ingest`, which is this by the minute.

create table ledger (
  at_ns bigint not null,              -- UTC, by the receiver's clock
  transport varchar not null,         -- grpc, http/protobuf, http/json, import
  reason varchar not null,            -- `accepted`, or why spans were refused: a low-cardinality word
  requests bigint not null,           -- accepted: requests; otherwise: requests that had something refused
  stored bigint not null,             -- spans
  duplicates bigint not null,         -- spans that were here already
  rejected bigint not null,           -- spans, as far as they could be counted
  example varchar,                    -- one of the refused, to recognise its sender by
  lateness_sum_ms bigint not null,    -- over stored spans: from a span's end to its arrival
  lateness_max_ms bigint,
  late bigint not null,               -- stored spans that arrived more than a minute after they ended
  ahead bigint not null,              -- stored spans that ended more than a second after they arrived: a wrong clock
  ahead_max_ms bigint
);
