"""Ask the collector's own table in ClickHouse: `python map_schema.py FOLDER COPIES < questions`.

Runs with chDB and the standard library alone, in an environment of its own. `bench_reports` starts it.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from chdb.session import Session

RUNS = 3
TABLE = """
create table otel_traces (
  Timestamp DateTime64(9) codec(Delta(8), ZSTD(1)),
  TraceId String codec(ZSTD(1)),
  SpanId String codec(ZSTD(1)),
  ParentSpanId String codec(ZSTD(1)),
  TraceState String codec(ZSTD(1)),
  SpanName LowCardinality(String) codec(ZSTD(1)),
  SpanKind LowCardinality(String) codec(ZSTD(1)),
  ServiceName LowCardinality(String) codec(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) codec(ZSTD(1)),
  ScopeName String codec(ZSTD(1)),
  ScopeVersion String codec(ZSTD(1)),
  SpanAttributes Map(LowCardinality(String), String) codec(ZSTD(1)),
  Duration UInt64 codec(T64, ZSTD(1)),
  StatusCode LowCardinality(String) codec(ZSTD(1)),
  StatusMessage String codec(ZSTD(1)),
  index idx_trace_id TraceId type bloom_filter(0.001) granularity 1,
  index idx_res_attr_key mapKeys(ResourceAttributes) type bloom_filter(0.01) granularity 1,
  index idx_res_attr_value mapValues(ResourceAttributes) type bloom_filter(0.01) granularity 1,
  index idx_span_attr_key mapKeys(SpanAttributes) type bloom_filter(0.01) granularity 1,
  index idx_span_attr_value mapValues(SpanAttributes) type bloom_filter(0.01) granularity 1,
  index idx_duration Duration type minmax granularity 1
)
engine = MergeTree
partition by toDate(Timestamp)
order by (ServiceName, SpanName, toDateTime(Timestamp), Timestamp)
settings index_granularity = 8192, ttl_only_drop_parts = 1
"""
"""As the Collector's ClickHouse exporter makes it; events and links, which no question asks for, are left out."""


def main(folder: Path, copies: int) -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    session = Session(str(folder / "clickhouse"))
    session.query("create database if not exists bench engine = Atomic")
    session.query("use bench")
    session.query("set session_timezone = 'UTC'")
    session.query(TABLE)
    begun = time.perf_counter()
    for file in sorted(folder.glob("spans-*.parquet")):
        for copy in range(copies):
            session.query(asked["load"].format(file=file, copy=copy))
    loaded_s = time.perf_counter() - begun
    session.query("optimize table otel_traces final")
    answers = {}
    for name, sql in asked["questions"].items():
        times, rows = [], []
        for _ in range(1 + RUNS):
            begun = time.perf_counter()
            text = str(session.query(sql, "JSONCompactEachRow"))
            times.append((time.perf_counter() - begun) * 1000)
            rows = [json.loads(line) for line in text.splitlines()]
        answers[name] = {"ms": sorted(times[1:])[RUNS // 2], "first_ms": times[0], "rows": rows[:1000]}

    def one(sql: str) -> Any:
        return json.loads(str(session.query(sql, "JSONCompactEachRow")))[0]

    told = {
        "version": one("select version()"),
        "loaded_s": loaded_s,
        "spans": int(one("select count() from otel_traces")),
        "file_mb": int(one("select sum(bytes_on_disk) from system.parts where active and table = 'otel_traces'")) >> 20,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "answers": answers,
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
