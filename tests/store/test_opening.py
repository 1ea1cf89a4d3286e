"""Opening a store: every reason why it cannot be is told apart."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from telemetry import semconv
from telemetry.errors import SchemaMismatch, StoreError, StoreLocked
from telemetry.store import opening, relations
from telemetry.store.checks import verify
from telemetry.store.duck import Request, Store
from telemetry.store.opening import SCHEMA_VERSION
from tests.support import outdated
from tests.support.copies import copied
from tests.support.spans import attempt, foreign, table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.duckdb"


def test_twice_in_one_process(path: Path) -> None:
    """Two stores on one file would not know each other's spans, so the second is refused."""
    with Store.open(path), pytest.raises(StoreLocked) as caught:
        Store.open(path)
    assert caught.value.pid == os.getpid()
    Store.open(path).close()


@pytest.mark.real
def test_locked_by_another_process(path: Path) -> None:
    """A file that another process holds is refused, naming the process."""
    code = f"import duckdb, time; c = duckdb.connect({str(path)!r}); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreLocked, match=f"process {other.pid}") as caught:
            Store.open(path)
        other.kill()
    assert caught.value.pid == other.pid


def test_nothing_there(path: Path) -> None:
    """Reading a store that does not exist says so, and makes none."""
    with pytest.raises(StoreError, match="no store at"):
        Store.open(path, read_only=True)
    assert not path.exists()


def test_other_file(path: Path) -> None:
    """A file of another kind is refused and left as it is."""
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="not a telemetry store"):
        Store.open(path)
    assert path.read_bytes().startswith(b"not a database")


def test_other_database(path: Path) -> None:
    """A DuckDB file with other tables is refused."""
    with duckdb.connect(str(path)) as other:
        other.execute("create table t (i int)")
    with pytest.raises(StoreError, match="not a telemetry store"):
        Store.open(path)


def test_damaged(path: Path) -> None:
    """A file with a damaged block is refused with the advice to restore a backup."""
    with Store.open(path) as store:
        store.commit([table(*(attempt(number) for number in range(1, 200)))])
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(path.stat().st_size - 4096 * 4))
    with pytest.raises(StoreError, match="damaged"):
        Store.open(path)


def killed(path: Path) -> Path:
    """A file as a kill leaves it, whose log has a commit."""
    with Store.open(path) as store:
        store.commit([table(attempt(1))])
        return copied(path, path.with_name("killed.duckdb"))


@pytest.mark.parametrize("log", [".wal", ".wal.checkpoint"])
def test_a_log_that_was_left_is_durable(path: Path, monkeypatch: pytest.MonkeyPatch, log: str) -> None:
    """What a kill left in a log unflushed is on the disk before anyone is told that it is stored."""
    left, steps = killed(path), list[str]()
    written = left.with_name(left.name + log)
    written.touch()
    number = written.stat().st_ino
    fsync, connect = os.fsync, duckdb.connect

    def noted(handle: int) -> None:
        fsync(handle)
        steps.extend(["flushed"] * (os.fstat(handle).st_ino == number))

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(duckdb, "connect", lambda *given, **more: steps.append("opened") or connect(*given, **more))
    Store.open(left).close()

    assert steps[:2] == ["flushed", "opened"]


def test_a_log_that_cannot_be_flushed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails then is an error, not silence."""
    left = killed(path)

    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match="cannot write the log"):
            Store.open(left)
    with Store.open(left) as store:
        assert store.info()["spans"] == len(attempt(1))


def test_newer_schema(path: Path) -> None:
    """A file of a newer version is refused, and says both versions."""
    Store.open(path).close()
    with duckdb.connect(str(path)) as other:
        other.execute("update stored.store set schema_version = 99")
    with pytest.raises(SchemaMismatch) as caught:
        Store.open(path)
    assert (caught.value.found, caught.value.expected) == (99, SCHEMA_VERSION)


@pytest.mark.parametrize("regions", ["max(region)", "min(region)"], ids=["from its rows", "from all spans"])
def test_changed_definition(path: Path, monkeypatch: pytest.MonkeyPatch, regions: str) -> None:
    """A file whose relations were defined otherwise is brought up to date, waiting spans included."""
    rows = attempt(1)
    with Store.open(path) as store:
        store.commit([table(rows)])
        store.tend(now=True)
        store.commit([table(attempt(2))])
    read = relations.definition
    wider = {
        "spans": ("received_ns bigint not null", "received_ns bigint not null,\n  mood varchar"),
        "connections": ("max(region)", regions),
    }
    monkeypatch.setattr(relations, "definition", lambda name: read(name).replace(*wider.get(name, ("", ""))))
    with pytest.raises(SchemaMismatch, match="telemetry serve"):
        Store.open(path, read_only=True)
    with Store.open(path) as store:
        found = store.query("select count(*) as n, count(mood) as moods from spans").to_pylist()
        checks = verify(store)

    assert found == [{"n": len(rows) + len(attempt(2)), "moods": 0}]
    assert all(check.passed for check in checks), checks


def test_changed_view(path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where only a view is defined otherwise, no row is computed again, which takes minutes in a large file."""
    with Store.open(path) as store:
        store.commit([table(attempt(1, samples=1))])
        store.tend(now=True)
        with store.maintained() as connection:
            connection.execute("update stored.connections set region = 'as it was'")
    read = relations.definition
    monkeypatch.setattr(
        relations, "definition", lambda name: read(name).replace("  region,\n", "  upper(region) as region,\n")
    )
    caplog.clear()
    with Store.open(path) as store:
        found = store.query("select region, (select region from samples) as sampled from connections").to_pylist()

    assert found == [{"region": "as it was", "sampled": "EU-WEST-1"}]
    assert caplog.messages == []


SAID = (
    {"mood": "happy", "age": 7},
    {"left": [1.5, None], "mood": "sad", "age": -(2**63)},
    {"left": 2.0, "mood": 1, "age": 2**43},
    {"left": 2**60, "age": 1 - 2**43},
)
"""Attributes of the spans of four attempts."""
KEPT = (
    ("happy", 7, None),
    ("sad", None, {"left": [1.5, None], "age": -(2**63)}),
    (None, None, SAID[2]),
    (None, 1 - 2**43, {"left": 2**60}),
)
"""The columns `mood` and `age`, and the attributes that come of them."""


def promote(monkeypatch: pytest.MonkeyPatch, *added: semconv.Column) -> None:
    """Give attributes columns, as a later version may."""
    kinds = {"text": "varchar", "int": "bigint"}
    read, end = relations.definition, "received_ns bigint not null"
    wider = {"spans": (end, end + "".join(f",\n  {column.name} {kinds[column.type]}" for column in added))}
    monkeypatch.setattr(relations, "definition", lambda name: read(name).replace(*wider.get(name, ("", ""))))
    monkeypatch.setattr(semconv, "COLUMNS", (*semconv.COLUMNS, *added))


@pytest.mark.parametrize("waiting", [False, True], ids=["stored", "waiting"])
def test_promoted_attribute(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: bool) -> None:
    """A new typed column has what the attributes of older spans say for it, and these lose it.

    So it is with what a resource says, and with spans that a crash left in a journal.
    """
    left = tmp_path / "left.duckdb"
    of_resource = {"resource_attributes": '{"host.arch":"arm","host.id":7}'}
    rows = [{**row, **of_resource} for row in foreign(9)]
    for number, said in enumerate(SAID):
        rows += [{**row, "attributes": json.dumps(said)} for row in attempt(number)]
    with Store.open(path) as store:
        store.commit([table(rows)])
        if not waiting:
            store.tend(now=True)
        copied(path, left)
    promote(
        monkeypatch,
        semconv.Column("mood", "text", "mood"),
        semconv.Column("age", "int", "age"),
        semconv.Column("host_arch", "text", None, "host.arch"),
    )
    with Store.open(left) as store:
        spans = store.query(
            "select distinct attempt_id, mood, age, host_arch, attributes::json::varchar as attributes, "
            "resource_attributes::json::varchar as resource from spans order by all"
        ).to_pylist()
        ids = store.query("select count(*) as n, count(distinct (trace_id, span_id)) as ids from spans").to_pylist()
        checks = verify(store)
        again = store.commit([store.query(f"select {store.readable_columns} from spans")])

    ours = [span for span in spans if span["attempt_id"]]
    assert [(span["mood"], span["age"], json.loads(span["attributes"] or "null")) for span in ours] == list(KEPT)
    assert {(span["host_arch"], span["resource"]) for span in spans if not span["attempt_id"]} == {
        ("arm", '{"host.id":7}')
    }
    assert ids == [{"n": len(rows), "ids": len(rows)}]
    assert again.stored == 0
    assert all(check.passed for check in checks), checks


@pytest.mark.parametrize("read_only", [False, True])
def test_columns_of_a_newer_version(path: Path, read_only: bool) -> None:
    """A file whose spans have columns that this version does not know is refused, named, and left as it is."""
    with pytest.MonkeyPatch.context() as patch:
        promote(patch, semconv.Column("mood", "text", "mood"))
        with Store.open(path) as store:
            store.commit([store.query(f"select {store.readable_columns} from spans")])
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match=r"newer version of telemetry \(mood\)"):
        Store.open(path, read_only=read_only)

    assert path.read_bytes() == before


def test_after_a_crash(path: Path, tmp_path: Path) -> None:
    """What a crash left waiting is in every answer again, also of a store that may not write, and is stored once."""
    left = tmp_path / "left.duckdb"
    rows = attempt(1)
    with Store.open(path) as store:
        store.commit([table(attempt(2))])
        store.tend(now=True)
        store.commit([table(rows[:5])])
        store.commit([table(rows[5:])])
        expected = [store.query(f"from {name} order by all").to_pylist() for name in ("verdicts", "ingest")]
        copied(path, left)
    for read_only in (True, False):
        with Store.open(left, read_only=read_only) as store:
            found = [store.query(f"from {name} order by all").to_pylist() for name in ("verdicts", "ingest")]
            checks = verify(store)
            waiting = store.info()["waiting_spans"]
            stored_again = 0 if read_only else store.commit([table(rows)]).stored

        assert found == expected
        assert waiting == len(rows)
        assert all(check.passed for check in checks), checks
        assert stored_again == 0


def test_version_1(path: Path) -> None:
    """What waits in a file of version 1, in tables of its own, is folded when the file is opened for writing.

    An attribute that became a column since then is moved there, too.
    """
    rows = attempt(1)
    outdated.of_version_1(path, table(rows[:5]), table(rows[5:]))
    with pytest.raises(SchemaMismatch):
        Store.open(path, read_only=True)
    for _ in range(2):
        with Store.open(path) as store:
            found = store.query("select sum(requests)::int as requests, sum(stored)::int as stored from ingest")
            checks = verify(store)
            stored_again = store.commit([store.query(f"select {store.readable_columns} from spans")]).stored
            attempts = store.query("select span_count from connections").to_pylist()
            said = store.query("select distinct network_type, attributes::json::varchar as others from spans")

        assert found.to_pylist()[0]["stored"] == len(rows)
        assert all(check.passed for check in checks), checks
        assert stored_again == 0
        assert attempts == [{"span_count": len(rows)}]
        assert said.to_pylist() == [{"network_type": "wifi", "others": None}]


class Copied:
    """A connection whose file is copied after each transaction: what a kill in that moment would leave."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path, left: list[Path]) -> None:
        """
        Args:
            left: gets the copies.
        """
        self._connection = connection
        self._path = path
        self._left = left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *arguments: Any) -> duckdb.DuckDBPyConnection:
        """Run a statement."""
        done = self._connection.execute(statement, *arguments)
        if statement == "commit":
            self._left.append(copied(self._path, self._path.with_name(f"left-{len(self._left)}.duckdb")))
        return done


@pytest.mark.parametrize(
    ("make", "transactions"),
    [(outdated.without_column, 3), (outdated.of_version_1, 4)],
    ids=["column added", "version 1"],
)
def test_killed_while_brought_up_to_date(
    path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path, pa.Table, pa.Table], None], transactions: int
) -> None:
    """After a kill between any two steps the file opens, and has each span once, with its attribute in one place."""
    stored, waiting, left = table(attempt(1), foreign(1)), table(attempt(2)), list[Path]()
    make(path, stored, waiting)
    prepare = opening.prepare
    with monkeypatch.context() as copied:
        copied.setattr(opening, "prepare", lambda made, at, **options: prepare(Copied(made, at, left), at, **options))
        Store.open(path).close()
    for copy in left:
        with Store.open(copy) as store:
            spans, misplaced, checks = store.info()["spans"], outdated.misplaced(store), verify(store)
            stored_again = store.commit([stored, waiting]).stored
            store.commit_each([Request(table(attempt(3)), "grpc", "3" * 32)])
        with Store.open(copy) as store:
            assert store.taken("3" * 32) == len(attempt(3))

        assert (spans, misplaced, stored_again) == (stored.num_rows + waiting.num_rows, 0, 0), copy.name
        assert all(check.passed for check in checks), checks
    assert len(left) == transactions


def test_many_rows(path: Path) -> None:
    """Of relations that are brought up to date every row is read, also where they have several row groups."""
    with Store.open(path) as store:
        store.commit([table(attempt(1))])
        store.tend(now=True)
    with duckdb.connect(str(path)) as connection:
        for name in ("connections", "steps"):
            connection.execute(
                f"insert into stored.{name} "
                f"select kept.* replace (printf('ffff%028x', number) as trace_id) "
                f"from (from stored.{name} limit 1) as kept, range(1, 150001) as numbers(number)"
            )
        connection.execute("update stored.store set definitions = 'older'")
    counts = "select (select count(trace_id) from connections) + (select count(trace_id) from steps) as n"

    with Store.open(path) as store:
        renewed = store.query(counts).to_pylist()
        store.tend(now=True)
        ids = store.query("select count(*) as n from ids where kind = 'trace'").to_pylist()
        steps_of_one = len(store.query("from steps where trace_id = $id", {"id": attempt(1)[0]["trace_id"]}))
    with Store.open(path, read_only=True) as store:
        reopened = store.query(counts).to_pylist()

    assert renewed == reopened == [{"n": 300_000 + 1 + steps_of_one}]
    assert ids == [{"n": 150_001}]


def test_a_column_that_is_derived_newly(path: Path) -> None:
    """What the ledger said is kept when a column is derived from it that an older file lacks."""
    with Store.open(path) as store:
        store.commit([table(attempt(1))])
        store.tend(now=True)
        before = store.query("from ingest").to_pylist()
    with duckdb.connect(str(path)) as connection:
        connection.execute("drop view main.ingest")
        connection.execute("alter table stored.ingest drop column lateness_mean_ms")
        connection.execute("update stored.store set definitions = 'older'")

    with Store.open(path) as store:
        assert store.query("from ingest").to_pylist() == before
        assert before[0]["lateness_mean_ms"] is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_forbidden(tmp_path: Path) -> None:
    """A folder that may not be written gives an error that says so."""
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot"):
        Store.open(tmp_path / "sub" / "s.duckdb")
    tmp_path.chmod(0o700)


def test_closed(path: Path) -> None:
    """A closed store answers with an error, and closing twice is fine."""
    store = Store.open(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.query("select 1")
    with pytest.raises(StoreError, match="closed"):
        store.commit([table(attempt(1))])
