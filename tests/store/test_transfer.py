"""What is exported comes back as it was, and once."""

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings

from telemetry.errors import StoreError
from telemetry.receiver import otlp
from telemetry.receiver.otlp import MAX_TIME_NS, Rejection
from telemetry.receiver.otlp_json import decode_json
from telemetry.receiver.otlp_protobuf import decode_protobuf
from telemetry.store import transfer
from telemetry.store.duck import Store
from telemetry.store.retention import DAY_NS
from telemetry.store.transfer import LINE_TEXT, Moved, export_otlp, export_parquet, import_otlp, import_parquet
from tests.support.otlp import RECEIVED_NS, Request, to_json
from tests.support.otlp import requests as any_request
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transfer")


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


@settings(max_examples=10, deadline=None)
@given(any_request)
def test_any_span(folder: Path, request: Request) -> None:
    """Whatever is taken in is exported with the types that it came with, and comes back from either form as it was."""
    decoded = decode_protobuf(request.SerializeToString(), RECEIVED_NS)
    here = Path(tempfile.mkdtemp(dir=folder))
    with (
        Store.open(here / "first.duckdb") as first,
        Store.open(here / "lines.duckdb") as lines,
        Store.open(here / "parquet.duckdb") as parquet,
    ):
        taken = first.commit([decoded.table]).stored
        export_otlp(first, here / "spans.jsonl")
        read = [import_otlp(lines, here / "spans.jsonl", clock=lambda: RECEIVED_NS)]
        if taken:
            export_parquet(first, here / "spans")
            read.append(import_parquet(parquet, here / "spans"))
            assert rows(parquet) == rows(first)
        assert rows(lines) == rows(first)
        exported = [json.loads(line) for line in (here / "spans.jsonl").read_text("utf-8").splitlines()]

    assert [(moved.spans, moved.rejected) for moved in read] == [(taken, ())] * len(read)
    expected: dict[str, Any] = {}
    for one in typed_spans(json.loads(to_json(request))):
        expected.setdefault(one["spanId"], one)  # what comes again is not stored
    for one in (one for line in exported for one in typed_spans(line)):
        assert one == expected[one["spanId"]]


def typed_spans(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The attributes of each span, its events and links, by key and with their OTLP types.

    What a span repeats of its resource is left out: it may be with the resource alone.
    """
    found = []
    for resource_spans in request.get("resourceSpans", []):
        resource = typed(resource_spans.get("resource", {}))
        for span in (span for scope in resource_spans.get("scopeSpans", []) for span in scope.get("spans", [])):
            own = {key: value for key, value in typed(span).items() if value not in resource.values()}
            parts = [typed(part) for part in [*span.get("events", []), *span.get("links", [])]]
            found.append({"spanId": span.get("spanId", "").lower(), "own": own, "parts": parts})
    return found


def typed(owner: dict[str, Any], name: str = "attributes") -> dict[str, str]:
    """Attributes by key; of a repeated one the last."""
    return {pair.get("key", ""): typed_value(pair.get("value", {})) for pair in owner.get(name, [])}


def typed_value(value: dict[str, Any]) -> str:
    """A value with its OTLP type."""
    if "arrayValue" in value:
        return repr([typed_value(item) for item in value["arrayValue"].get("values", [])])
    if "kvlistValue" in value:
        return repr(sorted(typed(value["kvlistValue"], "values").items()))
    return repr({kind: float(item) if kind == "doubleValue" else item for kind, item in value.items()})


def test_far_from_now(tmp_path: Path) -> None:
    """A whole export has every span that is taken, from 1970 to 2199."""
    spans = [{"traceId": "1" * 32, "spanId": "2" * 16}, {"traceId": "1" * 32, "spanId": "3" * 16}]
    spans[1]["startTimeUnixNano"] = spans[1]["endTimeUnixNano"] = str(MAX_TIME_NS - 1)
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([decode_json(json.dumps(request_of(spans)).encode(), RECEIVED_NS).table])
        assert export_otlp(store, tmp_path / "spans.jsonl").spans == 2
        assert export_parquet(store, tmp_path / "spans") == Moved(2, 2)


@pytest.mark.parametrize("owner", ["attributes", "resource_attributes"])
def test_large_spans(tmp_path: Path, owner: str) -> None:
    """A line of OTLP/JSON ends before it is large as it is, or with its resource on each span; all comes back."""
    large = json.dumps({"text": "x" * 400_000})
    many = [row | {owner: large} for row in attempt(1)]
    with Store.open(tmp_path / "s.duckdb") as store, Store.open(tmp_path / "other.duckdb") as other:
        store.commit([table(many)])
        export_otlp(store, tmp_path / "spans.jsonl")
        read = import_otlp(other, tmp_path / "spans.jsonl")
        same = rows(other, received=False) == rows(store, received=False)

    lines = (tmp_path / "spans.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == -(-len(many) // 2)
    assert max(map(len, lines)) < LINE_TEXT
    assert read.spans == len(many)
    assert same


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
        monkeypatch.setattr(transfer, "MAX_LINE", len(line) + 1)
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
