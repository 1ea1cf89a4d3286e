"""The receiver's and the store's own figures for Prometheus, in its text format. Pure: no I/O, no clock.

They come from the relation `ingest`, so they count everything that the store remembers, and survive a restart.
What happened to sessions is asked of the reports: a time series for each region and version belongs in a store.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
QUESTION: Final = """
select
  transport,
  reason,
  sum(requests) as requests,
  sum(stored) as stored,
  sum(duplicates) as duplicates,
  sum(rejected) as rejected,
  sum(late) as late,
  sum(ahead) as ahead,
  sum(lateness_sum_ms) as lateness_sum_ms
from ingest
group by transport, reason
order by transport, reason
"""


Samples = list[tuple[Mapping[str, str], float]]
"""Values, each with its labels."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric with its samples."""

    name: str
    kind: str
    help: str
    samples: Samples = field(default_factory=list)


def figures(ingest: Iterable[Mapping[str, Any]], spans: int | None, version: str) -> list[Figure]:
    """Turn the rows of `QUESTION` and the number of stored spans, if it was counted, into metrics."""
    rows = list(ingest)

    def counter(name: str, help: str, column: str, *, scale: float = 1) -> Figure:
        samples = [({"transport": r["transport"], "reason": r["reason"]}, int(r[column] or 0) * scale) for r in rows]
        return Figure(name, "counter", help, [(labels, value) for labels, value in samples if value])

    return [
        Figure("dp_telemetry_build_info", "gauge", "The version that answers.", [({"version": version}, 1)]),
        Figure("dp_telemetry_store_spans", "gauge", "Spans in the store.", [] if spans is None else [({}, spans)]),
        counter("dp_telemetry_requests_total", "OTLP requests, by reason of refusal or accepted.", "requests"),
        counter("dp_telemetry_spans_stored_total", "Spans stored.", "stored"),
        counter("dp_telemetry_spans_duplicate_total", "Spans dropped because they were there already.", "duplicates"),
        counter("dp_telemetry_spans_rejected_total", "Spans refused, by reason.", "rejected"),
        counter("dp_telemetry_spans_late_total", "Spans that arrived over a minute after their end.", "late"),
        counter("dp_telemetry_spans_ahead_total", "Spans that ended over a second after they arrived.", "ahead"),
        counter(
            "dp_telemetry_spans_lateness_seconds_total",
            "From the end of a span to its arrival, added up; divide by the spans stored.",
            "lateness_sum_ms",
            scale=0.001,
        ),
    ]


def store_figures(sizes: Mapping[str, Any]) -> list[Figure]:
    """Turn what a store says of its file into metrics."""
    return [
        Figure("dp_telemetry_store_file_bytes", "gauge", "The store's file.", [({}, sizes["file_bytes"])]),
        Figure("dp_telemetry_store_free_bytes", "gauge", "Of the file: free for spans.", [({}, sizes["free_bytes"])]),
        Figure("dp_telemetry_store_log_bytes", "gauge", "The write-ahead log beside it.", [({}, sizes["wal_bytes"])]),
        Figure(
            "dp_telemetry_store_trouble",
            "gauge",
            "1 while the store cannot be tended: `telemetry store info` says why.",
            [({}, float(sizes["trouble"] is not None))],
        ),
    ]


def text(wanted: Iterable[Figure]) -> str:
    """Write metrics in the text format."""
    lines: list[str] = []
    for figure in wanted:
        lines += [f"# HELP {figure.name} {figure.help}", f"# TYPE {figure.name} {figure.kind}"]
        for labels, value in figure.samples:
            inside = ",".join(f'{name}="{_escaped(str(text))}"' for name, text in labels.items())
            lines.append(f"{figure.name}{{{inside}}} {value:.15g}" if inside else f"{figure.name} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return re.sub(r'([\\"])', r"\\\1", value).replace("\n", r"\n")
