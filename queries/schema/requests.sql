-- The requests that were taken whole lately: one that comes again need not be decoded to be known.
--
-- Not for reports. Spans are known by their ids also where they come in another request.

create table requests (
  digest varchar not null,            -- 32 hex characters of the SHA-256 of encoding and body
  spans bigint not null               -- how many it has
);
