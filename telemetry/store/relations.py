"""Say in SQL how `connections` and `steps` are kept up to date. Makes text; knows no database.

The files in `queries/schema/` define each relation as a view over `spans`. Reading 100 million spans for every report
would be slow, so the store keeps rows that are merged already, and three schemas tell them apart:

- `stored`: what is on disk. New spans arrive in `stored.spans_a` or `stored.spans_b`, the inboxes.
  Now and then an inbox is *folded*: its spans move to `stored.spans`, and what they say is merged into
  `stored.connections` and `stored.steps`. The ledger of requests goes the same way, into `stored.ingest`.
- `main`: what reports read. Every relation is the stored rows and the inboxes together, so it is complete at any time.
- `definition`: the files' own text, computed from all spans. `main` must equal it; `telemetry store verify` compares.

It works because every column of a definition's inner select is a minimum, a maximum, a logical or, a count or a sum:
such columns merge in any order and in any pieces. This file reads them from the definition, one a line.
"""

import graphlib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry import settings
from telemetry.errors import StoreError

SIDES: Final = ("a", "b")
"""Two inboxes, so that a checkpoint can write one, and lock it meanwhile, while spans arrive in the other."""
INBOXES: Final = ("spans", "ledger")
"""What arrives, and waits in `stored.<name>_a` or `stored.<name>_b`."""

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
_UPDATE = {
    "min": "least(kept.{0}, fresh.{0})",
    "max": "greatest(kept.{0}, fresh.{0})",
    "bool_or": "greatest(kept.{0}, fresh.{0})",
    "count": "kept.{0} + fresh.{0}",
    "sum": "kept.{0} + fresh.{0}",
}
"""`least` and `greatest` pass over nulls, as the aggregates do."""


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
        return cls(name, rest.split()[0], partial, final, tuple(keys), aggregates)

    def partial_of(self, table: str) -> str:
        """One row for each key, over a table with the columns of the source."""
        return re.sub(rf"^from {self.source}$", f"from {table}", self.partial, flags=re.MULTILINE)

    @property
    def table(self) -> str:
        """Make the table of merged rows."""
        return f"create table stored.{self.name} as {self.partial_of(f'stored.{self.source}_a')} limit 0"

    def fold(self, side: str) -> str:
        """Merge what an inbox says into the stored rows."""
        return self.merge(f"stored.{self.source}_{side}", into=f"stored.{self.name}")

    def merge(self, table: str, *, into: str) -> str:
        """Merge what the rows of `table` say into merged rows."""
        updates = ",\n".join(f"{name} = {_UPDATE[kind].format(name)}" for name, kind in self.aggregates.items())
        return (
            f"merge into {into} as kept using (\n{self.partial_of(table)}\n) as fresh\n"
            f"using ({', '.join(self.keys)})\n"
            f"when matched then update set\n{updates}\nwhen not matched then insert by name"
        )

    @property
    def view(self) -> str:
        """What reports read: stored rows that no inbox touches, and those touched, merged with what the inboxes say."""
        keys = ", ".join(self.keys)
        aggregates = ",\n".join(f"{_MERGE[kind].format(name)} as {name}" for name, kind in self.aggregates.items())
        stored, inbox = f"stored.{self.name}", f"stored.{self.source}_inbox"
        untouched, touched = "", stored
        if self.source == "spans":
            # Leaves all but a few rows out of the grouping. The ledger by the minute is small enough without.
            traces = f"(select trace_id from {inbox} where attempt_id is not null) using (trace_id)"
            untouched = f"select * from {stored} anti join {traces}\nunion all by name\n"
            touched = f"{stored} semi join {traces}"
        return (
            f"create view main.{self.name} as\nwith merged as (\n{untouched}select {keys},\n{aggregates}\nfrom (\n"
            f"select * from {touched}\nunion all by name\n{self.partial_of(inbox)}\n) group by {keys}\n)\n{self.final}"
        )

    @property
    def definition_view(self) -> str:
        """The definition as it is written, in a schema of its own."""
        return definition(self.name).replace(f"create view {self.name} as", f"create view definition.{self.name} as")


MERGED: Final = tuple(Merged.read(name) for name in ("connections", "steps", "ingest"))


def tables() -> list[str]:
    """Statements that make what is on disk."""
    inboxes = [inbox(name, side) for name in INBOXES for side in SIDES]
    return [
        "create schema stored",
        "create table stored.held (i bigint)",  # always empty: see Store.tend
        _table("spans", "spans"),
        *inboxes,
        *(relation.table for relation in MERGED),
    ]


def plain_views() -> list[str]:
    """Names of the files that define a view and are not kept merged, each after those that it reads from."""
    texts = {file.stem: file.read_text(encoding="utf-8") for file in _folder().glob("*.sql")}
    texts = {name: text for name, text in texts.items() if f"create view {name} as" in text}
    reads = {name: set(re.findall(r"\b(?:from|join) (\w+)", text)) & texts.keys() for name, text in texts.items()}
    merged = {relation.name for relation in MERGED}
    return [name for name in graphlib.TopologicalSorter(reads).static_order() if name not in merged]


def fingerprint() -> str:
    """Changes whenever a definition changes, so that an older file is brought up to date."""
    text = "".join(definition(name) for name in ("spans", *plain_views())) + "".join(
        relation.view for relation in MERGED
    )
    return hashlib.sha256(text.encode()).hexdigest()


def inbox(name: str, side: str) -> str:
    """The statement that makes one inbox."""
    return _table(name, f"{name}_{side}")


def _table(name: str, stored_as: str) -> str:
    return definition(name).replace(f"create table {name} (", f"create table stored.{stored_as} (")


def views(span_columns: list[str]) -> list[str]:
    """Statements that make what reports read.

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
        *(relation.view for relation in MERGED),
        *(relation.definition_view for relation in MERGED if relation.source == "spans"),
        *(definition(name) for name in plain_views()),
    ]
