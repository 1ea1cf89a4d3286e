"""What is exported comes back as it was, and once."""

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from telemetry.errors import StoreError
from telemetry.receiver import otlp
from telemetry.receiver.otlp import Rejection
from telemetry.store import transfer
from telemetry.store.duck import Store
from telemetry.store.retention import DAY_NS
from telemetry.store.transfer import Moved, export_otlp, export_parquet, import_otlp, import_parquet
from tests.support.spans import T0, attempt, foreign, table

ATTRIBUTES = {"n": 1, "x": 1.0, "list": [1, "a", True], "nested": {"deep": {"b": {"bytesValue": "AA=="}}}, "big": 2**53}
EVENTS = '[{"time_ns":5,"name":"e","attributes":{"k":1.5},"dropped_attributes_count":2}]'
LINKS = json.dumps([{"trace_id": "a" * 32, "span_id": "b" * 16, "flags": 1}])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two days of spans, some folded and some waiting, with every kind of column filled somewhere."""
    store = Store.open(tmp_path / "s.duckdb")
    more = {"events": EVENTS, "links": LINKS, "dropped_events_count": 3, "dropped_links_count": 4}
    more |= {"resource_dropped_attributes_count": 5, "scope_dropped_attributes_count": 6, "trace_state": "a=b"}
    more |= {"resource_schema_url": "r", "scope_schema_url": "s", "scope_attributes": '{"s":1}', "scope_version": "1"}
    more |= {"resource_entity_refs": '[{"schema_url":"u","type":"t","id_keys":["i"],"description_keys":["d"]}]'}
    rows = attempt(1, samples=2, sample={"rtt_s": 0.25}, relay=True, attributes=ATTRIBUTES)
    rows[3] |= more
    rows[4] |= {"kind": "7"}
    store.commit([table(rows, foreign(1))])
    store.tend(now=True)
    store.commit([table(attempt(2, start_ns=T0 + DAY_NS, outcome="failed", error="noScene"))])
    return store


def rows(store: Store, *, received: bool = True) -> list[dict[str, Any]]:
    hidden = "" if received else " where true"
    found = store.query(f"select {store.readable_columns} from spans{hidden} order by trace_id, span_id").to_pylist()
    return [row if received else row | {"received_ns": None} for row in found]


def test_parquet_round_trip(store: Store, tmp_path: Path) -> None:
    """A Parquet export holds every column of every span, by day, and imports once however often."""
    wrote = export_parquet(store, tmp_path / "out")
    days = sorted(path.parent.name for path in (tmp_path / "out").rglob("*.parquet"))
    with Store.open(tmp_path / "other.duckdb") as other:
        read = import_parquet(other, tmp_path / "out")
        again = import_parquet(other, tmp_path / "out")
        assert rows(other) == rows(store)

    assert days == ["day=2026-09-21", "day=2026-09-22"]
    assert wrote == Moved(2, len(rows(store)))
    assert read == Moved(2, wrote.spans)
    assert again == Moved(2, 0, wrote.spans)
    store.close()


def test_parquet_is_read_by_others(store: Store, tmp_path: Path) -> None:
    """DuckDB by itself reads the export as one data set, with the day as a column."""
    export_parquet(store, tmp_path / "out")
    store.close()
    found = duckdb.sql(f"select day, count(*) from '{tmp_path}/out/*/*.parquet' group by 1 order by 1").fetchall()

    assert [str(day) for day, _ in found] == ["2026-09-21", "2026-09-22"]


def test_time_range(store: Store, tmp_path: Path) -> None:
    """An export may be of a range of time."""
    wrote = export_parquet(store, tmp_path / "out", since_ns=T0 + DAY_NS // 2)
    lines = export_otlp(store, tmp_path / "out.jsonl", until_ns=T0 + DAY_NS // 2)

    assert wrote.files == 1
    assert wrote.spans + lines.spans == len(rows(store))
    store.close()


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_otlp_round_trip(store: Store, tmp_path: Path, name: str) -> None:
    """An OTLP export, compressed or not, comes back with every column, except when it was received."""
    wrote = export_otlp(store, tmp_path / name)
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "rt") as lines:
        assert all("resourceSpans" in json.loads(line) for line in lines)
    with Store.open(tmp_path / "other.duckdb") as other:
        read = import_otlp(other, tmp_path / name, clock=lambda: T0)
        assert rows(other, received=False) == rows(store, received=False)

    assert read.spans == wrote.spans == len(rows(store))
    store.close()


def test_left_out(tmp_path: Path) -> None:
    """What an import cannot take is counted by reason with the first line that has it, and is in the ledger."""
    ids = {"traceId": "1" * 32, "spanId": "2" * 16}
    lines = [[ids, {**ids, "traceId": ""}], [{**ids, "spanId": ""}], [{**ids, "name": "x", "traceId": "0" * 32}]]
    file = tmp_path / "spans.jsonl"
    file.write_text("".join(f"{json.dumps(request_of(spans))}\n" for spans in lines))
    with Store.open(tmp_path / "s.duckdb") as store:
        moved = import_otlp(store, file)
        again = import_otlp(store, file)
        ledger = store.query("select reason, rejected, example from ingest where rejected > 0 order by all").to_pylist()

    trace, span = "trace_id is not 16 bytes, or all zeros", "span_id is not 8 bytes, or all zeros"
    first = f"spans.jsonl, line 1: traceId='', spanId={'2' * 16!r}"
    second = f"spans.jsonl, line 2: traceId={'1' * 32!r}, spanId=''"
    assert moved == Moved(1, 1, 0, (Rejection(trace, 2, first), Rejection(span, 1, second)))
    assert again == Moved(1, 0, 1, moved.rejected)
    assert [(row["reason"], row["rejected"]) for row in ledger] == [(span, 2), (trace, 4)]
    assert ledger[0]["example"] == second


def request_of(spans: list[dict[str, Any]]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is too large, as it is or when decoded, is named by file and line, and those before it are stored."""
    line = json.dumps(request_of([{"traceId": "1" * 32, "spanId": "2" * 16}]))
    many = json.dumps(request_of([{"traceId": "1" * 32, "spanId": f"{n:016x}"} for n in range(1, 5)]))
    (tmp_path / "spans.jsonl").write_text(f"{line}\n{many}\n")
    with Store.open(tmp_path / "s.duckdb") as store:
        with monkeypatch.context() as changed:
            changed.setattr(otlp, "MAX_SPANS", 3)
            with pytest.raises(StoreError, match=r"spans\.jsonl, line 2: the request has more than 3 spans"):
                import_otlp(store, tmp_path / "spans.jsonl")
        monkeypatch.setattr(transfer, "MAX_LINE_BYTES", len(line) + 1)
        with pytest.raises(StoreError, match=r"spans\.jsonl, line 2: the line is longer than"):
            import_otlp(store, tmp_path / "spans.jsonl")
        assert store.info()["spans"] == 1


def test_no_export(store: Store, tmp_path: Path) -> None:
    """What is no export is refused with its name."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.parquet").write_text("junk")
    (tmp_path / "junk.jsonl").write_text('\n{"resourceSpans": 1}\n')
    duckdb.sql(f"copy (select 1 as a) to '{tmp_path}/other.parquet'")
    with pytest.raises(StoreError, match=r"no \.parquet files"):
        import_parquet(store, tmp_path / "empty")
    with pytest.raises(StoreError, match=r"junk\.parquet"):
        import_parquet(store, tmp_path / "junk.parquet")
    with pytest.raises(StoreError, match="it has no end_ns"):
        import_parquet(store, tmp_path / "other.parquet")
    with pytest.raises(StoreError, match=r"junk\.jsonl, line 2"):
        import_otlp(store, tmp_path / "junk.jsonl")
    with pytest.raises(StoreError, match="cannot read"):
        import_otlp(store, tmp_path / "missing")
    store.close()
