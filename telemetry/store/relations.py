"""Say in SQL how `connections`, `verdicts`, `ids` and `steps` are kept up to date. Makes text; knows no database.

The files in `queries/schema/` define each relation as a view over `spans`. Reading 100 million spans for every report
would be slow, so the store keeps rows that are computed already, and four schemas tell them apart:

- `stored`: what is on disk. New spans arrive in `stored.spans_a` or `stored.spans_b`, the inboxes.
  Now and then an inbox is *folded*: its spans move to `stored.spans`, and what they say is merged into
  `stored.connections` and `stored.steps`. The ledger of requests goes the same way, into `stored.ingest`.
- `tail`: the rows of attempts that the inboxes touch, complete, in memory. The first query after a commit brings it up
  to date (`tail.py`), so that every other query is planned and answered as if it read one table.
- `definition`: the files' own text, computed from all spans. Views in `main` say the same, for whoever opens the file
  with another program.
- `temp`, of a reader's connection: what reports read, stored rows and the tail. It must equal `definition`;
  `telemetry store verify` compares.

It works because every column of a definition's inner select is a minimum, a maximum, a logical or, a count or a sum:
such columns merge in any order and in any pieces. This file reads them from the definition, one a line.
What a definition derives from them, an attempt's verdict and the hashes of its ids are computed from the merged row
whenever that changes.
"""

import graphlib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry import settings
from telemetry.errors import StoreError

SIDES: Final = ("a", "b")
"""Two inboxes, so that a checkpoint can write one, and lock it meanwhile, while spans arrive in the other."""
INBOXES: Final = ("spans", "ledger")
"""What arrives, and waits in `stored.<name>_a` or `stored.<name>_b`."""
ARRIVING: Final = tuple((name, side) for name in INBOXES for side in SIDES)

_AGGREGATE = re.compile(
    r"(?P<function>min|max|bool_or|count|sum)\((?P<argument>.*?)\)(?: filter \(.*\))?(?:::\w+)? as (?P<name>\w+)"
)
_MERGE = {
    "min": "min({0})",
    "max": "max({0})",
    "bool_or": "bool_or({0})",
    "count": "sum({0})::bigint",
    "sum": "sum({0})::bigint",
}
_VERDICT: Final = ("rule", "owner", "certainty")
"""What `verdicts` adds to the columns of `connections`; kept in the same row."""
_HASH: Final = re.compile(r"md5_number_lower\((\w+)_id\) % 4294967296")


def definition(name: str) -> str:
    """The text of one file of `queries/schema/`."""
    return (_folder() / f"{name}.sql").read_text(encoding="utf-8")


def _folder() -> Path:
    return settings.data_folder("queries") / "schema"


def _closes_once(argument: str) -> bool:
    """Whether this is the inside of one pair of parentheses, and not `a) - min(b`."""
    depth = 0
    for character in argument:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0


@dataclass(frozen=True, slots=True)
class Merged:
    """A relation whose rows are kept merged, taken apart from its definition."""

    name: str
    source: str
    """What it is computed from: `spans` or `ledger`."""
    partial: str
    """The inner select: one row for each key."""
    final: str
    """The outer select, over `merged`."""
    keys: tuple[str, ...]
    aggregates: dict[str, str]
    """Column to the aggregate function that makes it."""
    inner: tuple[str, ...]
    """Merged columns that the outer select leaves out."""

    @classmethod
    def read(cls, name: str) -> "Merged":
        """Take the definition apart.

        Raises:
            StoreError: the file is not written as this module reads it; names the line.
        """
        match = re.search(r"with merged as \(\n(.*?)\n\)\n(.*);", definition(name), re.DOTALL)
        if match is None:
            raise StoreError(f"queries/schema/{name}.sql has no `with merged as (…)` followed by its final select")
        partial, final = match.groups()
        keys: list[str] = []
        aggregates: dict[str, str] = {}
        columns, _, rest = partial.partition("\nfrom ")
        for line in columns.splitlines()[1:]:
            bare = re.sub(r"\s*--.*", "", line).strip().rstrip(",")
            if (found := _AGGREGATE.fullmatch(bare)) and _closes_once(found["argument"]):
                aggregates[found["name"]] = found["function"]
            elif found := re.fullmatch(r"(?:[^()]+ as )?(\w+)", bare):
                keys.append(found[1])
            else:
                raise StoreError(f"queries/schema/{name}.sql: `{bare}` is neither a key nor one aggregate on one line")
        hidden = re.match(r"select\n  \* exclude \((.*)\),", final)
        inner = tuple(hidden[1].split(", ")) if hidden else ()
        return cls(name, rest.split()[0], partial, final, tuple(keys), aggregates, inner)

    @property
    def table(self) -> str:
        """Make the table of rows that are kept, empty."""
        return f"{self.computed(f'stored.{self.source}_a')} limit 0"

    def computed(self, source: str) -> str:
        """Make the table with what all rows of a source say."""
        return f"create table stored.{self.name} as\n{self._rows(source)}"

    def derived(self, kept: str) -> str:
        """Make the table from the merged columns of another one: only what is derived from them is computed."""
        columns = ", ".join((*self.keys, *self.aggregates))
        merged = f"with merged as (select {columns} from {kept})"
        return f"create table stored.{self.name} as\n{merged},\n{self._derived()}"

    def fold(self, inbox: str, *, into: str) -> str:
        """Merge what an inbox says into kept rows.

        Args:
            inbox: a table or a view with the columns of the source.
            into: `stored.NAME`, or a copy of it.
        """
        return (
            f"merge into {into} as kept using (\n{self.touched(inbox)}\n) as fresh using ({', '.join(self.keys)})\n"
            "when matched then update by name when not matched then insert by name"
        )

    def touched(self, inbox: str) -> str:
        """The complete rows of all that an inbox says anything of: what is kept of them, merged with what it says."""
        return self._rows(inbox, self._kept(f"stored.{self.name}"))

    def advance(self, ends: Mapping[tuple[str, str], int]) -> list[str]:
        """Merge what arrived last into the tail.

        Not by `merge into`, which costs twice as much here: it updates every column of a row by itself.

        Args:
            ends: row numbers at which the inboxes ended before.
        """
        tail, keys = f"tail.main.{self.name}", ", ".join(self.keys)
        since = [(f"stored.{self.source}_{side}", ends[self.source, side]) for side in SIDES]
        arrived = " union all ".join(f"from {inbox} where rowid >= {end}" for inbox, end in since)
        kept = self._kept(tail) + self._kept(f"(from stored.{self.name} anti join {tail} using ({keys}))")
        return [
            f"create or replace temp table arrived as\n{self._rows(f'({arrived})', kept)}",
            f"delete from {tail} where ({keys}) in (select ({keys}) from arrived)",
            f"insert into {tail} by name from arrived",
        ]

    def _kept(self, table: str) -> str:
        """Begins a union with the rows of a table that have the keys of `fresh`."""
        columns = ", ".join((*self.keys, *self.aggregates))
        return f"select {columns} from {table} semi join fresh using ({', '.join(self.keys)})\nunion all by name\n"

    def _rows(self, inbox: str, kept: str = "") -> str:
        """Rows with all that is derived from them.

        Args:
            kept: begins a union with other rows of the same keys.
        """
        keys = ", ".join(self.keys)
        fresh = re.sub(rf"^from {self.source}$", f"from {inbox}", self.partial, flags=re.MULTILINE)
        merges = ",\n".join(f"{_MERGE[kind].format(name)} as {name}" for name, kind in self.aggregates.items())
        merged = f"select {keys},\n{merges}\nfrom (\n{kept}from fresh\n) group by {keys}"
        return f"with fresh as materialized (\n{fresh}\n),\nmerged as (\n{merged}\n),\n{self._derived()}"

    def _derived(self) -> str:
        """The end of a statement whose `merged` has the merged columns."""
        final = self.final.replace(f"* exclude ({', '.join(self.inner)})", "*")
        rows = f"from {self.name}"
        if self.name == "connections":
            hashes = ", ".join(f"({formula})::uinteger as {name}" for name, formula in _hashes().items())
            rows = f"select *, {hashes} from (\n{_select('verdicts')}\n)"
        return f"{self.name} as (\n{final}\n)\n{rows}"

    def views(self, kind: str, tail: str, given: str = "") -> list[str]:
        """What reports read: the rows of `tail`, and the kept rows of all else.

        Args:
            kind: `view` for the file, `temp view` for a reader's connection.
            tail: the name of what has the complete rows of what waits. A table is planned faster than a select.
            given: a `with` clause that names it.
        """
        hidden, ids = {self.name: self.inner}, []
        if self.name == "connections":
            hashes = tuple(_hashes())
            hidden = {self.name: (*self.inner, *_VERDICT, *hashes), "verdicts": (*self.inner, *hashes)}
            ids = [("ids", _ids("stored.connections"), _ids(tail))]
        rows = [
            (name, f"select {_all_but(columns)} from stored.{self.name}", f"select {_all_but(columns)} from {tail}")
            for name, columns in hidden.items()
        ]
        return [
            f"create {kind} {name} as\n{given}select * from (\n{kept}\n) anti join {tail} as touched "
            f"using ({', '.join(self.keys)})\nunion all\n{waiting}"
            for name, kept, waiting in rows + ids
        ]


def _all_but(columns: tuple[str, ...]) -> str:
    return f"* exclude ({', '.join(columns)})" if columns else "*"


def _hashes() -> dict[str, str]:
    """The columns that `ids` reads instead of computing them, with their formulas; kept with `connections`."""
    return {f"{found[1]}_hash": found[0] for found in _HASH.finditer(definition("ids"))}


def _ids(connections: str) -> str:
    """`ids` of the rows of a table that has their hashes."""
    return _HASH.sub(r"\1_hash", _select("ids")).replace("from connections", f"from {connections}")


MERGED: Final = tuple(Merged.read(name) for name in ("connections", "steps", "ingest"))
DEFINED: Final = {
    "connections": ("trace_id",),
    "verdicts": ("trace_id",),
    "ids": ("kind", "trace_id"),
    "steps": ("trace_id", "step"),
}
"""The relations that can be computed from all spans again, with their keys."""


_SOURCES: Final = {"spans": "main.spans", "connections": "definition.connections"}
"""What the definitions in `definition` read."""


def tables() -> list[str]:
    """Statements that make what is on disk."""
    inboxes = [inbox(name, side) for name in INBOXES for side in SIDES]
    return [
        "create schema stored",
        "create table stored.held (i bigint)",  # empty but for moments: see Store.tend and Store.compact
        _table("spans", "spans"),
        *inboxes,
        *(relation.table for relation in MERGED),
    ]


def plain_views() -> list[str]:
    """Names of the files that define a view of which no rows are kept, each after those that it reads from."""
    texts = {file.stem: file.read_text(encoding="utf-8") for file in _folder().glob("*.sql")}
    texts = {name: text for name, text in texts.items() if f"create view {name} as" in text}
    reads = {name: set(re.findall(r"\b(?:from|join) (\w+)", text)) & texts.keys() for name, text in texts.items()}
    kept = {relation.name for relation in MERGED} | {"verdicts", "ids"}
    return [name for name in graphlib.TopologicalSorter(reads).static_order() if name not in kept]


def fingerprint() -> str:
    """Changes whenever a definition changes, so that an older file is brought up to date."""
    return hashlib.sha256("".join((*tables(), *definitions([]), *views())).encode()).hexdigest()


def inbox(name: str, side: str) -> str:
    """The statement that makes one inbox."""
    return _table(name, f"{name}_{side}")


def _table(name: str, stored_as: str) -> str:
    return definition(name).replace(f"create table {name} (", f"create table stored.{stored_as} (")


def _select(name: str) -> str:
    """What a view is defined as."""
    return definition(name).partition(f"create view {name} as\n")[2].rstrip().rstrip(";")


def definitions(span_columns: list[str]) -> list[str]:
    """Statements that make views of all spans, and the relations computed from these.

    Args:
        span_columns: Of `spans`, in the order of its definition.
    """
    columns = ", ".join(span_columns)
    return [
        "create schema definition",
        f"create view stored.spans_inbox as "
        f"select {columns} from stored.spans_a union all select {columns} from stored.spans_b",
        "create view stored.ledger_inbox as from stored.ledger_a union all from stored.ledger_b",
        f"create view main.spans as "
        f"select {columns} from stored.spans union all select {columns} from stored.spans_inbox",
        *(
            f"create view definition.{name} as\n"
            + re.sub(
                r"^from (spans|connections)$", lambda m: f"from {_SOURCES[m[1]]}", _select(name), flags=re.MULTILINE
            )
            for name in DEFINED
        ),
    ]


def views() -> list[str]:
    """Statements that make the views of kept rows in the file, and those that read from them."""
    return [
        *(
            view
            for relation in MERGED
            for view in relation.views(
                "view", "tail", f"with tail as (\n{relation.touched(f'stored.{relation.source}_inbox')}\n)\n"
            )
        ),
        *(definition(name) for name in plain_views()),
    ]


def shown() -> str:
    """The statement that says where each inbox ends: what arrives later has these row numbers, or higher ones."""
    ends = (f"(select coalesce(max(rowid) + 1, 0) from stored.{name}_{side})" for name, side in ARRIVING)
    return f"select {', '.join(ends)}"


def tail() -> list[str]:
    """Statements that make the tail anew, from what waits."""
    return [
        f"create or replace table tail.main.{relation.name} as\n{relation.touched(f'stored.{relation.source}_inbox')}"
        for relation in MERGED
    ]


def advance(ends: Mapping[tuple[str, str], int]) -> list[str]:
    """Statements that merge into the tail what arrived since the inboxes ended there."""
    return [statement for relation in MERGED for statement in relation.advance(ends)]


def empty_tail() -> list[str]:
    """Statements that make the tail's tables."""
    return [f"create table tail.main.{relation.name} as from stored.{relation.name} limit 0" for relation in MERGED]


def reading() -> list[str]:
    """Statements by which a connection reads stored rows and the tail, under the names that reports know."""
    return [
        *(view for relation in MERGED for view in relation.views("temp view", f"tail.main.{relation.name}")),
        *(definition(name).replace("create view", "create temp view") for name in plain_views()),
    ]
