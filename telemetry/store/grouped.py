"""Say in SQL how `sessions` and `episodes` are kept up to date. Makes text; knows no database.

A row of theirs groups the attempts that share an id, and unlike an attempt's own row it does not merge: it is made anew
from the rows of `connections` whenever one of these changes.
The id's hash finds them, which `stored.connections` has as a column of numbers; ids that share a hash go together.
"""

import re
from dataclasses import dataclass


def merge(table: str, columns: list[str], rows: str) -> str:
    """Put the rows of another table at their `place` in a stored one, or add those that have none."""
    listed, values = ", ".join(columns), ", ".join(f"made.{name}" for name in columns)
    return (
        f"merge into stored.{table} as kept using {rows} as made on kept.rowid = made.place\n"
        f"when matched then update set {', '.join(f'{name} = made.{name}' for name in columns)}\n"
        f"when not matched then insert ({listed}) values ({values})"
    )


@dataclass(frozen=True, slots=True)
class Grouped:
    """A relation with one row for all attempts that share an id, taken from its definition."""

    name: str
    select: str
    """What it is of `connections`."""
    key: str
    """The id."""
    hash: str
    """The column that has its hash, also of the rows that are kept."""
    formula: str
    """Of the hash."""

    @property
    def _columns(self) -> list[str]:
        made = re.findall(r" as (\w+),?(?: +--.*)?$", self.select, re.MULTILINE)
        return [self.key, *made, self.hash]

    @property
    def computed(self) -> str:
        """Make the table anew, of all attempts that are stored."""
        return f"create or replace table stored.{self.name} as\n{self._rows('from stored.connections')}"

    def _rows(self, connections: str) -> str:
        rows = f"select *, ({self.formula})::uinteger as {self.hash} from (\n{self.select}\n)"
        return f"with connections as (\n{connections}\n)\n{rows}"

    def note(self, connections: str) -> list[str]:
        """Note whose rows will change, before anything does.

        Args:
            connections: what to select from to have the attempts that change, as they were and as they will be.
        """
        known = f"where {self.hash} in (from changed_{self.name})"
        return [
            f"create or replace temp table changed_{self.name} as\nselect distinct {self.hash} from {connections}",
            f"create or replace temp table known_{self.name} as\n"
            f"select rowid as place, {self.hash} from stored.connections {known}",
        ]

    @property
    def regroup(self) -> list[str]:
        """Make the rows anew that were noted, of the attempts in `arrived` and the others in `stored.connections`."""
        others = (
            f"from stored.connections where rowid in (select place from known_{self.name})\n"
            "and rowid not in (select place from arrived where place is not null)"
        )
        arrived = f"from arrived where {self.hash} in (from changed_{self.name})"
        rows = self._rows(f"{others}\nunion all by name\n{arrived}")
        # An id that no attempt had has no row yet.
        found = f"select rowid from stored.{self.name} where {self.hash} in (select {self.hash} from known_{self.name})"
        places = f"select rowid as place, {self.key} from stored.{self.name} where rowid in ({found})"
        return [
            f"create or replace temp table regrouped as\nfrom (\n{rows}\n) full join (\n{places}\n) using ({self.key})",
            f"delete from stored.{self.name} where rowid in (select place from regrouped where {self.hash} is null)",
            f"delete from regrouped where {self.hash} is null",
            merge(self.name, self._columns, "regrouped"),
            *(f"drop table {name}" for name in ("regrouped", f"known_{self.name}", f"changed_{self.name}")),
        ]

    def view(self, kind: str, tail: str | None = None) -> str:
        """What reports read; see `Merged.views`.

        Args:
            tail: the table of the attempts that what waits touches, complete.
        """
        kept = f"select * exclude ({self.hash}) from stored.{self.name}"
        if tail is None:
            return f"create {kind} {self.name} as\n{kept}"
        in_tail = f"in (select trace_hash from {tail})"  # which has all attempts of each hash
        hashes = f"select {self.hash} from {tail} union select {self.hash} from stored.connections"
        changed = f"changed as materialized (\n{hashes} where trace_hash {in_tail}\n)"
        others = f"from stored.connections semi join changed using ({self.hash}) where trace_hash not {in_tail}"
        return (
            f"create {kind} {self.name} as\n"
            f"with {changed},\nconnections as (\n{others}\nunion all by name\nfrom {tail}\n)\n"
            f"{kept} anti join changed using ({self.hash})\nunion all\n{self.select}"
        )
