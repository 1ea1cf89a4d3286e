"""Spans that a sender may get wrong in every number: they are stored, and spoil no fold and no answer."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry import reports
from telemetry.receiver.otlp import MAX_TIME_NS, SPANS_SCHEMA
from telemetry.semconv import COLUMNS, MAX_TYPED_FLOAT, MAX_TYPED_INT, Part, Span, State
from telemetry.store import relations
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from tests.support.spans import T0, Row

NOW = T0 + 3600 * 10**9
TIMES = st.sampled_from((0, 1, T0, MAX_TIME_NS - 1))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.sampled_from((-MAX_TYPED_INT + 1, -1, 0, 1, MAX_TYPED_INT - 1)),
    "float": st.sampled_from((-MAX_TYPED_FLOAT * 0.999, 0.0, 1e-300, MAX_TYPED_FLOAT * 0.999)),
    "bool": st.booleans(),
    "text": st.sampled_from(("", "a", "connected", "failed", *State)),
}
NAMES = st.sampled_from((*Part, *Span, *State))


@st.composite
def spans(draw: st.DrawFn) -> list[Row]:
    """Spans of a few attempts, named as ours are, with any times and values."""
    rows = []
    for number in range(draw(st.integers(1, 40))):
        filled = draw(st.lists(st.sampled_from(COLUMNS), max_size=8, unique=True))
        rows.append(
            {column.name: draw(VALUES[column.type]) for column in filled}
            | {
                "trace_id": f"{draw(st.integers(1, 3)):032x}",
                "span_id": f"{number + 1:016x}",
                "name": draw(NAMES),
                "kind": "INTERNAL",
                "status_code": "UNSET",
                "start_ns": draw(TIMES),
                "end_ns": draw(TIMES),
                "received_ns": T0,
                "attempt_id": draw(st.sampled_from((None, "attempt-1", "attempt-2"))),
                "state": draw(st.sampled_from((None, *State))),
            }
        )
    return rows


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans())
def test_any_numbers(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    """Whatever times and values spans have, they are stored and folded, every report answers, and all is as defined."""
    path = tmp_path_factory.mktemp("extremes") / "s.duckdb"
    with Store.open(path, clock=lambda: T0) as store:
        store.commit([pa.Table.from_pylist(rows, schema=SPANS_SCHEMA)])
        waiting = answers(store)
        store.tend(now=True)

        assert answers(store) == waiting
        assert [check for check in verify(store) if not check.passed] == []


def answers(store: Store) -> dict[str, int]:
    """How many rows each relation and each report over all times has."""
    counted = {name: store.query(f"from {name}").num_rows for name in relations.DEFINED}
    for name, report in reports.catalogue().items():
        asked = {"since": "1970-01-01", "until": "2116-01-01", "bucket": "36500d"}
        named = {param.name: asked.get(param.name, "attempt-1") for param in report.params}
        params = {param.name: named[param.name] for param in report.params if param.required or param.name in asked}
        counted[name] = reports.execute(name, params, store, now_ns=NOW).num_rows
    return counted
