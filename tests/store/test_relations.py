"""The maintained relations equal their definitions, whatever arrives in whatever order."""

import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.errors import StoreError
from telemetry.store import duck, relations
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from tests.support.spans import T0, Row, attempt, foreign, table

OUTCOMES = ("connected", "failed", "cancelled", "unfinished")


def fleet() -> list[Row]:
    """A few dozen attempts of every outcome, with retries, a resumed session, heartbeats and a foreign trace."""
    rows = foreign(1, spans=5)
    for number in range(1, 25):
        rows += attempt(
            number,
            outcome=OUTCOMES[number % 4],
            start_ns=T0 + number * 10**9,
            samples=number % 3,
            sample={"rtt_s": number / 100},
            queue_positions=(number, 1),
            session="shared" if number % 8 == 0 else None,
            episode=number // 2 + 1,
            resumed=bool(number % 2) if number % 3 else None,
            disconnect="normal" if number % 5 else None,
            region=None if number % 7 == 0 else "eu-west-1",
            synthetic=number % 6 == 0,
        )
    for row in rows[::2]:  # of one attempt, two sessions; the later name is the one it has
        if row["trace_id"] == f"{1:032x}":
            row["session_id"] = "another"
    return [*rows, *_same_hash()]


def _same_hash() -> list[Row]:
    """Three attempts that began at once: two of their traces share a hash, as do two of their sessions."""
    return [
        row
        for number, session in ((49152, "session-162099"), (89107, "session-184885"), (33, "session-162099"))
        for row in attempt(number, session=session, episode=31)
    ]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """`connections` of the fleet, stored in one piece."""
    with Store.open(tmp_path_factory.mktemp("whole") / "s.duckdb") as store:
        store.commit([table(fleet())])
        rows: list[Row] = store.query("from connections order by trace_id").to_pylist()
        return rows


class TestDelivery:
    @settings(max_examples=8, deadline=None)
    @given(
        seed=st.integers(0, 2**32),
        batch=st.integers(40, 200),
        repeated=st.floats(0, 1),
        fold=st.floats(0, 1),
        ask=st.floats(0, 1),
    )
    def test_any_order(
        self, expected: list[Row], seed: int, batch: int, repeated: float, fold: float, ask: float
    ) -> None:
        """Shuffled, split, repeated and delayed spans give relations that equal their definitions.

        However many queries had what waited put together in between.
        """
        rows = fleet()
        chance = random.Random(seed)
        chance.shuffle(rows)
        with (
            patch.object(duck, "FOLD_ROWS", 150),  # of which a fold leaves the rest waiting
            tempfile.TemporaryDirectory() as folder,
            Store.open(Path(folder) / "s.duckdb") as store,
        ):
            for start in range(0, len(rows), batch):
                again = [row for row in rows[:start] if chance.random() < repeated / 4]
                store.commit([table(again), table(rows[start : start + batch])])
                if chance.random() < fold:
                    store.tend(now=chance.random() < 0.5)
                if chance.random() < ask:
                    store.query("select 1")
            checks = verify(store)
            found = store.query("from connections order by trace_id").to_pylist()

        assert all(check.passed for check in checks), checks
        assert found == expected

    def test_rows_while_waiting_and_after_folding(self, tmp_path: Path) -> None:
        """Every relation answers the same before and after its spans are folded."""
        names = ["ingest", *relations.DEFINED, *relations.plain_views()]
        with Store.open(tmp_path / "s.duckdb") as store:
            store.commit([table(fleet())])
            before = {name: store.query(f"from {name} order by all").to_pylist() for name in names}
            store.tend(now=True)
            after = {name: store.query(f"from {name} order by all").to_pylist() for name in names}
            waiting = store.info()["waiting_spans"]

        assert waiting == 0
        assert before == after
        assert all(before.values())

    def test_other_programs(self, tmp_path: Path) -> None:
        """The views of a file that was closed, which any DuckDB reads, say what the store answered before."""
        names = ["ingest", *relations.DEFINED, *relations.plain_views()]
        with Store.open(tmp_path / "s.duckdb") as store:
            store.commit([table(fleet()[::2])])
            store.tend(now=True)
            store.commit([table(fleet()[1::2])])
            expected = {name: store.query(f"from {name} order by all").to_pylist() for name in names}
        with duckdb.connect(str(tmp_path / "s.duckdb"), read_only=True) as other:
            waiting = other.sql("select source from stored.journal_a union all select source from stored.journal_b")
            waiting = waiting.fetchall()
            found = {name: other.sql(f"from {name} order by all").to_arrow_table().to_pylist() for name in names}

        assert waiting == []
        assert found == expected

    def test_acknowledged_is_in_the_next_query(self, tmp_path: Path) -> None:
        """Every relation has what was committed before a query began, though others commit and fold meanwhile."""
        with Store.open(tmp_path / "s.duckdb") as store:
            missing = []

            def ask(first: int) -> None:
                for number in range(first, first + 6):
                    store.commit([table(attempt(number))])
                    if number % 3 == 0:
                        store.tend(now=True)
                    sql = "select count(*) as n from verdicts join connections using (trace_id) where trace_id = $id"
                    found = store.query(sql, {"id": table(attempt(number))["trace_id"][0].as_py()})
                    if found.to_pylist() != [{"n": 1}]:
                        missing.append(number)

            threads = [threading.Thread(target=ask, args=(first,)) for first in (1, 101)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        assert missing == []

    def test_attempt_in_three_places(self, tmp_path: Path) -> None:
        """An attempt whose spans are folded, in one journal and in the other is one row."""
        rows = attempt(1)
        with Store.open(tmp_path / "s.duckdb") as store:
            store.commit([table(rows[:5])])
            store.tend(now=True)
            store.commit([table(rows[5:9])])
            store.query("select 1")
            store._side = store._other_side()
            store.commit([table(rows[9:])])
            found = store.query("select outcome, span_count from connections").to_pylist()
            checks = verify(store)

        assert found == [{"outcome": "connected", "span_count": len(rows)}]
        assert all(check.passed for check in checks), checks


class TestGroups:
    """`sessions` and `episodes`, whose rows are of several attempts."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with Store.open(tmp_path / "s.duckdb") as store:
            yield store

    @pytest.mark.parametrize("folded", [(), (0,), (1,), (0, 1)], ids=str)
    def test_attempt_changes_its_session(self, store: Store, folded: tuple[int, ...]) -> None:
        """Of an attempt that turns out to be another session's, nothing is left in the first."""
        rows = attempt(1, session="a")
        other = [{**row, "session_id": "b"} for row in rows]
        for number, part in enumerate((rows[:8], other[8:])):
            store.commit([table(part)])
            if number in folded:
                store.tend(now=True)
        found = store.query("select session_id, connections from sessions").to_pylist()
        checks = verify(store)

        assert found == [{"session_id": "b", "connections": 1}]
        assert all(check.passed for check in checks), checks

    def test_same_hash(self, store: Store) -> None:
        """Sessions whose ids share a hash are apart, and one is found beside the other when it changes."""
        rows = _same_hash()[::-1]
        for start in range(0, len(rows), 9):  # half an attempt
            store.commit([table(rows[start : start + 9])])
            store.tend(now=True)
        found = store.query("select session_id, connections, last_attempt_id from sessions order by all").to_pylist()

        assert found == [
            {"session_id": "session-162099", "connections": 2, "last_attempt_id": "attempt-49152"},
            {"session_id": "session-184885", "connections": 1, "last_attempt_id": "attempt-89107"},
        ]
        assert store.query("select attempts from episodes").to_pylist() == [{"attempts": 3}]

    def test_rows_change_in_place(self, store: Store) -> None:
        """A session that is heard of again and again has one row, and leaves no deleted ones."""
        for number in range(5):
            store.commit([table(attempt(number, session="a", episode=1))])
            store.tend(now=True)
        places = store.query("select rowid as place, connections from stored.sessions").to_pylist()

        assert places == [{"place": 0, "connections": 5}]


class TestReadingDefinitions:
    @pytest.mark.parametrize("relation", relations.MERGED, ids=lambda relation: relation.name)
    def test_every_column_is_a_key_or_an_aggregate(self, relation: relations.Merged) -> None:
        """Each definition of a merged relation is understood to the last column."""
        assert relation.keys
        assert set(relation.aggregates.values()) <= {"min", "max", "bool_or", "count", "sum"}

    def test_two_aggregates_in_one_column(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A column that cannot be merged is refused by name, when the module is read and not when data is wrong."""
        inner = "select\n  trace_id,\n  max(a) - min(a) as spread\nfrom spans\ngroup by trace_id"
        text = f"create view x as\nwith merged as (\n{inner}\n)\nselect * from merged;"
        monkeypatch.setattr(relations, "definition", lambda _: text)

        with pytest.raises(StoreError, match=r"max\(a\) - min\(a\) as spread"):
            relations.Merged.read("x")

    def test_views_in_order(self) -> None:
        """A view is made after the views that it reads from."""
        order = relations.plain_views()

        assert {"durations", "samples"} <= set(order)
