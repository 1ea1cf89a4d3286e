"""What waits is kept as it came, packed or not, and nothing that cannot be stored is let in."""

import pyarrow as pa
import pytest

from telemetry.errors import DecodeError
from telemetry.store import journal
from telemetry.store.journal import Source, Waiting, joined, packed
from tests.support.spans import attempt, foreign, table

SPANS = Source("spans")
SOME = table(attempt(1), foreign(1))


def test_unpacked_as_it_was() -> None:
    """A packed table has its columns and rows again, those that hold nothing included."""
    assert SPANS.unpacked(packed(SOME)).equals(SOME)


def test_earlier_version() -> None:
    """A table that was packed without a column has nothing in it."""
    found = SPANS.unpacked(packed(SOME.drop_columns(["name"])))

    assert found.schema == SPANS.schema
    assert found["name"].null_count == SOME.num_rows


def test_joined() -> None:
    """Joined tables are one, in one piece, and take no room for what none of them has."""
    parts = [SOME.slice(0, 3), SOME.slice(3)] * 50
    found = joined(parts)

    assert found.equals(pa.concat_tables(parts))
    assert {column.num_chunks for column in found.columns} == {1}
    assert len({found[name].chunk(0).buffers()[1].address for name in ("ice_servers", "close_code")}) == 1
    assert joined([SPANS.schema.empty_table()]).equals(SPANS.schema.empty_table())


def test_small_tables_are_joined() -> None:
    """A thousand commits of one span make a few tables, with all spans in their order."""
    waiting = Waiting(SPANS)
    rows = SOME.slice(0, 1).to_pylist()[0]
    given = [table([rows | {"span_id": f"{number:016x}"}]) for number in range(1000)]
    for one in given:
        waiting.add(one)

    assert len(waiting.tables) <= 11
    assert waiting.rows == 1000
    assert pa.concat_tables(waiting.tables).equals(pa.concat_tables(given))


def test_too_little_memory_to_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tables that cannot be joined now are all still there, and are joined later."""
    waiting = Waiting(SPANS)
    given = [SOME.slice(number, 1) for number in range(4)]
    waiting.add(given[0])
    assert len(waiting.tables) == 1
    for one in given[1:]:
        waiting.add(one)

    def exhausted(_tables: object) -> pa.Table:
        raise pa.ArrowMemoryError("malloc failed")

    with monkeypatch.context() as scarce:
        scarce.setattr(journal, "joined", exhausted)
        with pytest.raises(MemoryError):
            len(waiting.tables)

    assert pa.concat_tables(waiting.tables).equals(pa.concat_tables(given))


def test_checked() -> None:
    """Other columns, a missing name and a text where a number belongs are refused; a narrower number is taken."""
    narrow = SOME.set_column(4, "flags", SOME["flags"].cast(pa.int32()))
    worded = SOME.set_column(4, "flags", SOME["name"])
    nameless = SOME.set_column(5, "name", pa.nulls(SOME.num_rows, pa.string()))

    assert SPANS.checked(narrow).schema == SPANS.schema
    for bad, why in ((worded, "flags|parse"), (nameless, "lack their name"), (SOME.select(["name"]), "other columns")):
        with pytest.raises((DecodeError, pa.ArrowInvalid), match=why):
            SPANS.checked(bad)
