"""What every report answers at the edges: nothing, one attempt, only failures, none, wrong clocks, the range's ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from telemetry import reports
from telemetry.store.duck import Store
from tests.queries.asking import HOUR, S, T
from tests.support.spans import Row, attempt, table

INSIDE = T + 600 * S
BUSY: dict[str, Any] = {"outcome": "failed", "error": "noScene", "detail": "busy"}
SAMPLED: dict[str, Any] = {"samples": 2, "sample": {"rtt_s": 0.1}, "queue_positions": (2, 1)}


def turned_back(rows: list[Row]) -> list[Row]:
    """Spans of a clock that was set back while each of them lasted."""
    return [row | {"end_ns": row["start_ns"] - S} for row in rows]


CASES: dict[str, list[list[Row]]] = {
    "nothing": [],
    "one": [attempt(1, start_ns=INSIDE, **SAMPLED)],
    "all_failed": [attempt(n, start_ns=INSIDE + n * S, **BUSY) for n in range(1, 8)],
    "none_failed": [attempt(n, start_ns=INSIDE + n * S, **SAMPLED) for n in range(1, 8)],
    "cancelled": [attempt(1, start_ns=INSIDE, outcome="cancelled", stops_in="queue")],
    "unfinished": [attempt(1, start_ns=INSIDE, outcome="unfinished", stops_in="assets")],
    "probes": [attempt(n, start_ns=INSIDE + n * S, synthetic=True, **SAMPLED) for n in range(1, 4)],
    "edges": [
        *(attempt(1, start_ns=T - 1, **BUSY), attempt(2, start_ns=T, **BUSY)),
        *(attempt(3, start_ns=T + HOUR - 1, **SAMPLED), attempt(4, start_ns=T + HOUR, **SAMPLED)),
    ],
    "skewed": [
        attempt(1, start_ns=INSIDE, received_after_ms=-1_800_000, **SAMPLED),
        turned_back(attempt(2, start_ns=INSIDE, **SAMPLED)),
    ],
}
N: set[Any] = set()
"""No row."""
A1 = {"attempt-0001"}
# Each report's values in one column, case by case, in the order of `CASES`:
# nothing, one, all failed, none failed, cancelled, unfinished, probes, at the range's edges, with wrong clocks.
ANSWERS: dict[str, tuple[Any, ...]] = {
    "changes": ("after_ratio", N, {0}, {1}, {0}, N, N, N, {0.5}, {0}),
    "cohorts": ("failure_ratio", N, {0}, {1}, {0}, N, N, N, {0.5, 0}, {0}),
    "concurrency": ("peak", {0}, {1}, {0}, {7}, {0}, {0}, {0}, {0}, {1}),
    "deadline_what_if": ("completed", N, {1}, {0}, {7}, {0}, {0, 1}, N, {1}, {1}),
    "disconnects": ("sessions_ratio", N, {1}, N, {1}, N, N, N, N, {1}),
    "episodes": ("eventual_ratio", N, {1}, {0}, {1}, {None}, {None}, N, {0.5}, {1}),
    "errors": ("failed_ratio", N, N, {1}, N, N, N, N, {1}, N),
    "failure_rate": ("failure_ratio", N, {0}, {1}, {0}, {None}, {None}, {None}, {0.5}, {0}),
    "funnel": ("reached_ratio", N, {1}, {1, 0}, {1}, {1, 0}, {1, 0}, N, {1, 0.5}, {1}),
    "ingest_health": ("ahead_ratio", {None}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0.5}),
    "media_quality": ("rtt_poor_ratio", N, {0}, N, {0}, N, N, N, N, {0}),
    "queue": ("no_scene_ratio", N, {0}, {1}, {0}, {0}, {0}, N, {0.5}, {0}),
    "queue_patience": ("gave_up_ratio", N, {0}, N, {0}, N, N, N, {0}, {0}),
    "recent": ("outcome", N, {"connected"}, {"failed"}, {"connected"}, {"cancelled"}, {"unfinished"}, N,
               {"connected", "failed"}, {"connected"}),
    "saturation": ("no_scene_ratio", N, {0}, {1}, {0}, {0}, {0}, N, {0.5}, {0}),
    "sessions": ("connected_ratio", N, {1}, N, {1}, N, {0}, N, {1}, {1}),
    "slowest": ("duration_ms", N, {1200}, {300}, {1200}, {300}, {300}, N, {1200, 300}, {1200, -1000}),
    "step_durations": ("completed_ratio", N, {1}, {0}, {1}, {0}, {0, 1}, N, {0.5}, {1}),
    "survival": ("waiting_ratio", N, {0}, {1}, {0}, {1}, {1}, N, {0, 1}, {0}),
    "time_to_connect": ("within_ratio", N, {1}, N, {1}, N, N, N, {0.5}, {1}),
    "timeline": ("attempt_id", N, A1, A1, A1, A1, A1, A1, A1, A1),
    "tries": ("connected_by_ratio", N, {1}, {0}, {1}, N, N, N, {0.5}, {1}),
    "unfinished": ("attempt_id", N, N, N, N, N, A1, N, N, N),
    "verdicts": ("rule", N, N, {"queue.busy"}, N, {"cancelled"}, {"unfinished"}, N, {"queue.busy"}, N),
}  # fmt: skip
BACKWARDS = {"slowest": "duration", "timeline": "duration", "recent": "connect", "ingest_health": "lateness_mean"}
"""Columns where a clock set back shows as a time below zero; elsewhere such times are left out."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Store]]:
    """A store for each case; all spans arrive a quarter of an hour into the range."""
    folder: Path = tmp_path_factory.mktemp("edges")
    opened = {name: Store.open(folder / f"{name}.duckdb", clock=lambda: T + 900 * S) for name in CASES}
    for name, attempts in CASES.items():
        opened[name].commit([table(*attempts)])
    yield opened
    for store in opened.values():
        store.close()


def answer(name: str, store: Store) -> pa.Table:
    """The report over the hour from `T`, in one piece, asked an hour later."""
    params = {"since": T, "until": T + HOUR, "now": T + 2 * HOUR, "bucket": "all", "id": "attempt-0001", "least": 1}
    known = {param.name for param in reports.find(name).params}
    return reports.execute(name, {key: params[key] for key in params.keys() & known}, store, now_ns=T + 2 * HOUR)


@pytest.mark.parametrize("name", reports.catalogue())
def test_answers_at_the_edges(name: str, stores: dict[str, Store]) -> None:
    """Every report has its defined answer in every case, and no figure in it is out of bounds."""
    column, *expected = ANSWERS[name]
    for case, values in zip(CASES, expected, strict=True):
        rows = answer(name, stores[case]).to_pylist()
        assert {row[column] for row in rows} == values, case
        for row in rows:
            in_bounds(name, row)


def in_bounds(name: str, row: dict[str, Any]) -> None:
    """Shares lie in 0..1, within their interval, and are of something; no time is below zero."""
    for column, value in row.items():
        if value is not None and column.endswith("_ratio"):
            assert (-1 if column.startswith("difference") else 0) <= value <= 1, column
        elif value is not None and column.endswith(("_ms", "_s")) and not column.startswith(BACKWARDS.get(name, "-")):
            assert value >= 0, column
    for ratio, count in reports.find(name).ratios.items():
        low, high = (row.get(ratio.replace("_ratio", f"_{side}_ratio")) for side in ("low", "high"))
        if row[ratio] is not None:
            assert row[count] > 0, ratio
            assert low is None or low - 1e-9 <= row[ratio] <= high + 1e-9, ratio
        else:
            assert low is None


@pytest.mark.parametrize("name", reports.catalogue())
def test_no_share_without_its_count(name: str, stores: dict[str, Store]) -> None:
    """The header of a report names, for each share among its columns, the column that it is a share of."""
    report, columns = reports.find(name), set(answer(name, stores["nothing"]).column_names)

    shares = {
        column for column in columns if column.endswith("_ratio") and not column.endswith(("_low_ratio", "_high_ratio"))
    }

    assert set(report.ratios) == shares
    assert set(report.ratios.values()) <= columns
