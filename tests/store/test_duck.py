"""The store: what is committed is there once, and errors leave it usable."""

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from telemetry.errors import DecodeError, SchemaMismatch, StoreError, StoreLocked
from telemetry.store import relations
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from tests.support.spans import SPANS_SCHEMA, T0, attempt, foreign, table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.duckdb"


def count(store: Store) -> int:
    return int(store.query("select count(*) as n from spans")["n"][0].as_py())


class TestCommit:
    def test_durable(self, path: Path) -> None:
        """Committed spans are there after the file is opened again, with every column as it was given."""
        attributes = {"app.n": 1, "app.x": 1.5, "app.s": ["a", "b"], "app.big": 2**60}
        given = table(attempt(1, attributes=attributes))
        with Store.open(path) as store:
            committed = store.commit([given])
        with Store.open(path, read_only=True) as store:
            found = store.spans_of([given["trace_id"][0].as_py()])

        order = [("start_ns", "ascending"), ("span_id", "ascending")]
        assert committed.stored == given.num_rows
        for name in SPANS_SCHEMA.names:
            if name not in ("attributes", "resource_attributes"):
                assert found.sort_by(order)[name].to_pylist() == given.sort_by(order)[name].to_pylist(), name
        assert json.loads(found["attributes"][0].as_py()) == attributes
        assert '"app.n":1,' in found["attributes"][0].as_py()

    def test_nothing(self, path: Path) -> None:
        """A commit without spans is fine."""
        with Store.open(path) as store:
            assert store.commit([]).stored == 0
            assert store.commit([table([])]).stored == 0

    def test_twice(self, path: Path) -> None:
        """A span that is sent again, in the same commit or a later one, is stored once and counted."""
        rows = attempt(1)
        with Store.open(path) as store:
            first = store.commit([table(rows), table(rows[:3])])
            second = store.commit([table(rows[2:])])
            stored = count(store)

        assert (first.stored, first.duplicates) == (len(rows), 3)
        assert (second.stored, second.duplicates) == (0, len(rows) - 2)
        assert stored == len(rows)

    def test_again_after_reopening(self, path: Path) -> None:
        """A span that is sent again to a new process is stored once."""
        rows = attempt(1)
        with Store.open(path) as store:
            store.commit([table(rows)])
        with Store.open(path) as store:
            again = store.commit([table(rows)])

        assert (again.stored, again.duplicates) == (0, len(rows))

    def test_same_span_id_in_two_traces(self, path: Path) -> None:
        """A span id is unique within its trace only."""
        rows = attempt(1)
        other = [row | {"trace_id": "f" * 32} for row in rows]
        with Store.open(path) as store:
            assert store.commit([table(rows, other)]).stored == 2 * len(rows)

    def test_answers_each_request(self, path: Path) -> None:
        """Requests that are committed together each learn about their own spans."""
        rows = attempt(1)
        with Store.open(path) as store:
            each = store.commit_each([(table(rows), "grpc"), (table(rows[:4], foreign(1)), "http/json")])

        assert [(one.stored, one.duplicates) for one in each] == [(len(rows), 0), (10, 4)]

    def test_unstorable(self, path: Path) -> None:
        """What is no span is refused for good, and the next commit succeeds."""
        bad = table([row | {"attributes": "{not json"} for row in attempt(1)])
        with Store.open(path) as store:
            with pytest.raises(DecodeError):
                store.commit([bad])
            with pytest.raises(DecodeError):
                store.commit([pa.table({"trace_id": ["x"]})])
            assert store.commit([table(attempt(1))]).stored > 0
            assert all(check.passed for check in verify(store))

    def test_read_only(self, path: Path) -> None:
        """A store that is open for reading refuses spans."""
        Store.open(path).close()
        with Store.open(path, read_only=True) as store, pytest.raises(StoreError, match="reading only"):
            store.commit([table(attempt(1))])


class TestLedger:
    def test_by_minute(self, path: Path) -> None:
        """What was stored, dropped and refused adds up by minute, transport and reason, before and after folding."""
        rows = attempt(1, received_after_ms=1500)
        with Store.open(path, clock=lambda: T0) as store:
            store.commit([table(rows)], transport="grpc")
            store.tend(now=True)
            store.commit([table(rows)], transport="grpc")
            store.record_rejection("grpc", "bad trace id", 2, "trace id 00")
            store.record_rejection("grpc", "bad trace id", 3)
            found = store.query("from ingest order by reason").to_pylist()

        accepted, refused = found
        assert accepted["minute_ns"] == T0 // 60_000_000_000 * 60_000_000_000
        assert (accepted["requests"], accepted["stored"], accepted["duplicates"]) == (2, len(rows), len(rows))
        assert (accepted["lateness_max_ms"], accepted["lateness_mean_ms"]) == (1500, 1500)
        assert (refused["reason"], refused["requests"], refused["rejected"]) == ("bad trace id", 2, 5)
        assert refused["example"] == "trace id 00"


class TestQuery:
    def test_snapshot(self, path: Path) -> None:
        """A query that is being read sees one state, whatever is committed, folded and checkpointed meanwhile."""
        with Store.open(path) as store:
            store.commit([table(*(attempt(number) for number in range(1, 50)))])
            before = count(store)
            with (
                store.reader() as reader,
                reader.batches("select * exclude (attributes) from spans", rows=100) as batches,
            ):
                read = len(batches.read_next_batch())
                store.commit([table(attempt(99))])
                store.tend(now=True)
                read += sum(len(batch) for batch in batches)
            assert read == before
            assert count(store) > before
            assert store.trouble is None

    @pytest.mark.parametrize(
        "sql",
        [
            "select * from read_csv('/etc/passwd')",
            "attach '/tmp/other.duckdb' as other",
            "copy (select 1) to '/tmp/out.csv'",
            "set threads = 1",
            "set enable_external_access = true",
            "install httpfs",
            "delete from stored.spans",
            "drop table stored.spans",
        ],
    )
    def test_cannot_reach_out(self, path: Path, sql: str) -> None:
        """A query can neither write nor reach files, the network or settings."""
        with Store.open(path) as store:
            with pytest.raises(StoreError):
                store.query(sql)
            assert store.commit([table(attempt(1))]).stored > 0

    def test_times_out(self, path: Path) -> None:
        """A query that takes longer than its limit ends with an error that says so, and the store goes on."""
        with Store.open(path) as store:
            with pytest.raises(StoreError, match=r"longer than 0\.05 s"):
                store.query("select count(*) from range(10000000) a, range(10000000) b", timeout_s=0.05)
            assert count(store) == 0

    def test_too_much_memory(self, path: Path) -> None:
        """A query that needs more memory than the store has fails alone."""
        with Store.open(path, memory_limit_bytes=100_000_000) as store:
            with pytest.raises(StoreError, match="more memory"):
                store.query("select list(i) from range(100000000) t(i)")
            assert store.commit([table(attempt(1))]).stored > 0

    def test_spans_of(self, path: Path) -> None:
        """The spans of given attempts come by time, folded or not, and no others."""
        with Store.open(path) as store:
            store.commit([table(attempt(1), foreign(1))])
            store.tend(now=True)
            store.commit([table(attempt(2), attempt(3))])
            wanted = [f"{number:032x}" for number in (1, 2)]
            found = store.spans_of(wanted)
            other = store.spans_of([f"f{1:031x}"])

        assert set(found["trace_id"].to_pylist()) == set(wanted)
        assert found["start_ns"].to_pylist() == sorted(found["start_ns"].to_pylist())
        assert other.num_rows == 10


class TestOpen:
    def test_twice_in_one_process(self, path: Path) -> None:
        """Two stores on one file would not know each other's spans, so the second is refused."""
        with Store.open(path), pytest.raises(StoreLocked) as caught:
            Store.open(path)
        assert caught.value.pid == os.getpid()
        Store.open(path).close()

    @pytest.mark.real
    def test_locked_by_another_process(self, path: Path) -> None:
        """A file that another process holds is refused, naming the process."""
        code = f"import duckdb, time; c = duckdb.connect({str(path)!r}); print('open', flush=True); time.sleep(60)"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            with pytest.raises(StoreLocked, match=f"process {other.pid}") as caught:
                Store.open(path)
            other.kill()
        assert caught.value.pid == other.pid

    def test_nothing_there(self, path: Path) -> None:
        """Reading a store that does not exist says so, and makes none."""
        with pytest.raises(StoreError, match="no store at"):
            Store.open(path, read_only=True)
        assert not path.exists()

    def test_other_file(self, path: Path) -> None:
        """A file of another kind is refused and left as it is."""
        path.write_bytes(b"not a database" * 1000)
        with pytest.raises(StoreError, match="not a telemetry store"):
            Store.open(path)
        assert path.read_bytes().startswith(b"not a database")

    def test_other_database(self, path: Path) -> None:
        """A DuckDB file with other tables is refused."""
        with duckdb.connect(str(path)) as other:
            other.execute("create table t (i int)")
        with pytest.raises(StoreError, match="not a telemetry store"):
            Store.open(path)

    def test_damaged(self, path: Path) -> None:
        """A file with a damaged block is refused with the advice to restore a backup."""
        with Store.open(path) as store:
            store.commit([table(*(attempt(number) for number in range(1, 200)))])
        with path.open("r+b") as file:
            file.seek(4096 * 3)
            file.write(os.urandom(path.stat().st_size - 4096 * 4))
        with pytest.raises(StoreError, match="damaged"):
            Store.open(path)

    def test_newer_schema(self, path: Path) -> None:
        """A file of a newer version is refused, and says both versions."""
        Store.open(path).close()
        with duckdb.connect(str(path)) as other:
            other.execute("update stored.store set schema_version = 99")
        with pytest.raises(SchemaMismatch) as caught:
            Store.open(path)
        assert (caught.value.found, caught.value.expected) == (99, 1)

    def test_changed_definition(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file whose relations were defined otherwise is brought up to date, waiting spans included."""
        rows = attempt(1)
        with Store.open(path) as store:
            store.commit([table(rows)])
            store.tend(now=True)
            store.commit([table(attempt(2))])
        read = relations.definition
        wider = {
            "spans": ("received_ns bigint not null", "received_ns bigint not null,\n  mood varchar"),
        }
        monkeypatch.setattr(relations, "definition", lambda name: read(name).replace(*wider.get(name, ("", ""))))
        with pytest.raises(SchemaMismatch):
            Store.open(path, read_only=True)
        with Store.open(path) as store:
            found = store.query("select count(*) as n, count(mood) as moods from spans").to_pylist()
            checks = verify(store)

        assert found == [{"n": len(rows) + len(attempt(2)), "moods": 0}]
        assert all(check.passed for check in checks), checks

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
    def test_forbidden(self, tmp_path: Path) -> None:
        """A folder that may not be written gives an error that says so."""
        tmp_path.chmod(0o500)
        with pytest.raises(StoreError, match="cannot"):
            Store.open(tmp_path / "sub" / "s.duckdb")
        tmp_path.chmod(0o700)

    def test_closed(self, path: Path) -> None:
        """A closed store answers with an error, and closing twice is fine."""
        store = Store.open(path)
        store.close()
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.query("select 1")
        with pytest.raises(StoreError, match="closed"):
            store.commit([table(attempt(1))])
