"""What is too old or too much goes, as whole attempts, and what is left is consistent."""

from pathlib import Path

import duckdb
import pyarrow.compute as pc
import pytest

from telemetry.store.checks import verify
from telemetry.store.duck import Committed, Request, Store
from telemetry.store.retention import DAY_NS, Pruned, Retention, prune, used_bytes
from telemetry.support.asking import ask
from tests.support.spans import T0, attempt, foreign, moved, table

NOW = T0 + 100 * DAY_NS


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Attempts that began 99, 50 and 1 days before NOW; 2 and 12 are of staging; a foreign trace 99 days before."""
    store = Store.open(tmp_path / "s.duckdb", clock=lambda: T0)
    rows = [foreign(1, start_ns=T0 + DAY_NS)]
    for number, day in ((1, 1), (2, 1), (11, 50), (12, 50), (21, 99)):
        environment = "staging" if number % 10 == 2 else "production"
        rows.append(attempt(number, start_ns=T0 + day * DAY_NS, environment=environment))
    store.commit([table(*rows)])
    return store


def attempts(store: Store) -> list[int]:
    return [int(trace_id, 16) for trace_id in store.query("from connections order by 1")["trace_id"].to_pylist()]


def test_by_age(store: Store) -> None:
    """Attempts and other spans older than the limit go, and nothing else."""
    pruned = prune(store, Retention(days=60), now_ns=NOW)

    assert attempts(store) == [11, 12, 21]
    assert pruned == Pruned(spans=2 * len(attempt(1)) + 10, attempts=2)
    assert store.query("select count(*) as n from spans").to_pylist() == [{"n": 3 * len(attempt(1))}]
    assert all(check.passed for check in verify(store))
    store.close()


def test_by_environment(store: Store) -> None:
    """An environment may have a limit of its own, shorter or longer than the others'."""
    prune(store, Retention(days=60, environment_days={"staging": 10}), now_ns=NOW)
    shorter = attempts(store)
    prune(store, Retention(days=10, environment_days={"staging": 1000}), now_ns=NOW)

    assert shorter == [11, 21]
    assert attempts(store) == [21]
    store.close()


def test_requests_are_forgotten_with_their_spans(tmp_path: Path) -> None:
    """A request that comes again after its spans were forgotten is stored again; until then it is known."""
    old, new = (Request(table(attempt(n, start_ns=T0 + n * 50 * DAY_NS)), "grpc", str(n) * 32) for n in (0, 1))
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        store.commit_each([old])
        store.tend(now=True)
        store.commit_each([new])
        before = [store.taken(request.digest or "") for request in (old, new)]
        prune(store, Retention(days=20), now_ns=T0 + 60 * DAY_NS)
        after = store.taken(old.digest or "")
    with Store.open(path) as store:
        reopened = [store.taken(request.digest or "") for request in (old, new)]
        again = store.commit_each([old, new])

    assert before == [old.spans.num_rows, new.spans.num_rows]
    assert after is None
    assert reopened == [None, new.spans.num_rows]
    assert [one.stored for one in again] == [old.spans.num_rows, 0]


def test_a_request_that_comes_again_while_its_spans_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told that they are there, as they are until then; but it is stored if it comes once more."""
    old = Request(table(attempt(1)), "grpc", "1" * 32)
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit_each([old])
        store.tend(now=True)
        forget = store.forget_requests

        def forget_around_a_commit(connection: duckdb.DuckDBPyConnection) -> None:
            meanwhile.extend(store.commit_each([old]))
            forget(connection)
            meanwhile.extend(store.commit_each([old]))

        meanwhile: list[Committed] = []
        monkeypatch.setattr(store, "forget_requests", forget_around_a_commit)
        prune(store, Retention(days=20), now_ns=T0 + 60 * DAY_NS)
        known = store.taken("1" * 32)
        [again] = store.commit_each([old])
        known_again = store.taken("1" * 32)

    assert [one.duplicates for one in meanwhile] == [old.spans.num_rows] * 2
    assert known is None
    assert again.stored == known_again == old.spans.num_rows


def test_nothing_forgotten_forgets_no_request(tmp_path: Path) -> None:
    """Pruning that finds nothing leaves requests known, in memory and in the file."""
    path = tmp_path / "s.duckdb"
    with Store.open(path) as store:
        store.commit_each([Request(table(attempt(1)), "grpc", "1" * 32)])
        store.tend(now=True)
        prune(store, Retention(days=20), now_ns=T0)
        known = store.taken("1" * 32)
    with Store.open(path) as store:
        reopened = store.taken("1" * 32)

    assert known == reopened == len(attempt(1))


def test_part_of_a_session(store: Store) -> None:
    """Of a session that is resumed day after day, what is forgotten no longer counts; it ends with its last attempt."""
    for number, day in ((41, 1), (42, 50)):
        store.commit([table(attempt(number, start_ns=T0 + day * DAY_NS, session="long", episode=9, live_ms=1))])
    sessions = "select connections, start_ns from sessions where session_id = 'long'"
    before = store.query(sessions).to_pylist()
    prune(store, Retention(days=60), now_ns=NOW)
    after = store.query(sessions).to_pylist()
    checks = verify(store)
    prune(store, Retention(days=10), now_ns=NOW)

    assert before == [{"connections": 2, "start_ns": T0 + DAY_NS}]
    assert after == [{"connections": 1, "start_ns": T0 + 50 * DAY_NS}]
    assert all(check.passed for check in checks), checks
    assert store.query(sessions).to_pylist() == []
    assert store.query("select count(*) as n from stored.episodes").to_pylist() == [{"n": 1}]
    store.close()


def test_clocks_that_are_ahead(store: Store) -> None:
    """What a wrong clock dates into the future goes by when it arrived, be it of ours or another program's."""
    year_2199 = 7 * 10**18
    for rows in (attempt(51, start_ns=year_2199), foreign(52, start_ns=year_2199)):
        store.commit([table([{**row, "received_ns": T0 + DAY_NS} for row in rows])])
    kept = prune(store, Retention(days=99.5), now_ns=NOW)
    pruned = prune(store, Retention(days=60), now_ns=NOW)

    assert kept == Pruned(spans=0, attempts=0)
    assert pruned == Pruned(spans=3 * len(attempt(1)) + 2 * len(foreign(1)), attempts=3)
    assert attempts(store) == [11, 12, 21]
    assert all(check.passed for check in verify(store))
    store.close()


def test_size_and_clocks_that_are_ahead(tmp_path: Path) -> None:
    """Spans that a wrong clock dates into the future do not outlive those with a right one, where room is short."""
    some = table(*(attempt(n) for n in range(1, 101)))
    hour_ns = DAY_NS // 24
    with Store.open(tmp_path / "s.duckdb") as store:
        for hour in range(150):
            batch = moved(some, hour, by_ns=hour * hour_ns)
            if hour % 2 == 0:
                ahead = pc.add(batch["end_ns"], 10**18)
                batch = batch.set_column(batch.schema.get_field_index("end_ns"), "end_ns", ahead)
            store.commit([batch])
        store.tend(now=True)
        prune(store, Retention(max_bytes=used_bytes(store) // 2), now_ns=NOW)
        left = {int(trace_id[:8], 16) for trace_id in store.query("from connections")["trace_id"].to_pylist()}

        assert left == set(range(min(left), 150))
        assert 0 < min(left) < 149


def test_long_session(store: Store) -> None:
    """A session that began long ago and lately gave a sign of life is kept whole."""
    day_ms = DAY_NS / 1_000_000
    rows = attempt(31, start_ns=T0, live_ms=99.5 * day_ms)
    store.commit([table(rows)])
    prune(store, Retention(days=30), now_ns=NOW)

    assert attempts(store) == [21, 31]
    assert len(ask(store, "spans_of", {"trace_id": f"{31:032x}"})) == len(rows)
    store.close()


def test_sign_of_life(store: Store) -> None:
    """A session whose only late span still waits is kept, and what waits is not folded for its sake."""
    rows = attempt(31, start_ns=T0, live_ms=99.5 * DAY_NS / 1_000_000)
    late = [row for row in rows if row["end_ns"] > T0 + 99 * DAY_NS]
    store.commit([table([row for row in rows if row not in late])])
    store.tend(now=True)
    store.commit([table(late)])
    pruned = prune(store, Retention(days=30), now_ns=NOW)

    assert late
    assert pruned.attempts == 4
    assert attempts(store) == [21, 31]
    assert len(ask(store, "spans_of", {"trace_id": f"{31:032x}"})) == len(rows)
    assert store.info()["waiting_spans"] == len(late)
    assert all(check.passed for check in verify(store))
    store.close()


def test_by_size(tmp_path: Path) -> None:
    """The oldest go until the file's contents fit as far as row groups allow, and the newest stay."""
    some = table(*(attempt(n) for n in range(1, 101)))
    hour_ns = DAY_NS // 24
    hours = 150  # two row groups
    with Store.open(tmp_path / "s.duckdb") as store:
        store.commit([moved(some, hour, by_ns=hour * hour_ns) for hour in range(hours)])
        store.tend(now=True)
        before = used_bytes(store)
        pruned = prune(store, Retention(max_bytes=before // 2), now_ns=NOW)
        left = {int(trace_id[:8], 16) for trace_id in store.query("from connections")["trace_id"].to_pylist()}

        assert used_bytes(store) < before
        assert left == set(range(min(left), hours))
        assert hours // 2 <= min(left) < hours - 1
        assert pruned.attempts >= 100 * min(left)
        assert all(check.passed for check in verify(store))


def test_nothing_to_do(store: Store) -> None:
    """A retention that covers everything changes nothing."""
    assert prune(store, Retention(days=1000, max_bytes=2**40), now_ns=NOW) == Pruned(0, 0)
    store.close()
