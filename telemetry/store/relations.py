"""Say in SQL how the relations of spans are kept up to date. Makes text; knows no database.

The files in `queries/schema/` define each relation as a view over `spans`. Reading 100 million spans for every report
would be slow, so the store keeps rows that are computed already, and four schemas tell them apart:

- `stored`: what is on disk. Each commit writes all its spans, packed (`journal.py`), as one row into `stored.journal_a`
  or `stored.journal_b`, as others its part of the ledger and of the requests, and keeps all in memory as Arrow tables,
  where they wait.
  Now and then a journal is *folded*: its spans are inserted into `stored.spans`, what they say is merged into
  `stored.connections` and `stored.steps`, the rows of `stored.sessions` and `stored.episodes` that this changes are
  made anew (`grouped.py`), and the journal is emptied, in one transaction. The ledger of requests goes the same way,
  into `stored.ingest`. Only after a crash is a journal read.
  `stored.requests` has the digests of the requests that were taken last.
  `stored.ids` says when the attempt began that an id names: in the order of the ids' hashes, so that one is found in
  20 million by reading one row group. Folds append to `stored.ids_recent`, until so many are there that sorting pays.
- `tail`: the rows of attempts that waiting spans touch, complete, in memory. The first query after a commit brings it
  up to date (`tail.py`), so that every other query is planned and answered as if it read one table.
- `definition`: the files' own text, computed from all stored spans. Views in `main` are the kept rows, for whoever
  opens the file with another program: closing it folds what waits.
- `temp`, of a reader's connection: what reports read, stored rows and the tail, and of spans those that wait; while
  nothing waits, the file's own views say the same and are planned sooner. Either must equal what the definitions say
  of `spans`; `telemetry store verify` compares.

It works because every column of a definition's inner select is a minimum, a maximum, a logical or, a count or a sum:
such columns merge in any order and in any pieces. This file reads them from the definition, one a line.
What a definition derives from them, an attempt's verdict and the hashes of its ids are computed from the merged row
whenever that changes.
"""

import graphlib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry import settings
from telemetry.errors import StoreError
from telemetry.store.grouped import Grouped, merge

SIDES: Final = ("a", "b")
"""Two journals, so that a fold can drop one while spans arrive in the other."""
SOURCES: Final = ("spans", "ledger", "requests")
"""What arrives. A connection reads what waits of it as `waiting_<name>`, an Arrow table."""

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
_TRACE_HASH: Final = "trace_hash"
_HASH: Final = re.compile(r"md5_number_lower\((\w+)_id\) % 4294967296")


def definition(name: str) -> str:
    """The text of one file of `queries/schema/`."""
    return (_folder() / f"{name}.sql").read_text(encoding="utf-8")


def _select(name: str) -> str:
    """What a view is defined as."""
    return definition(name).partition(f"create view {name} as\n")[2].rstrip().rstrip(";")


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
        return f"{self.computed('stored.spans' if self.source == 'spans' else self.source)} limit 0"

    def computed(self, source: str) -> str:
        """Make the table with what all rows of a source say."""
        return f"create table stored.{self.name} as\n{self._rows(source)}"

    def derived(self, kept: str) -> str:
        """Make the table from the merged columns of another one: only what is derived from them is computed."""
        columns = ", ".join((*self.keys, *self.aggregates))
        merged = f"with merged as (select {columns} from {kept})"
        return f"create table stored.{self.name} as\n{merged},\n{self._derived()}"

    @property
    def fold(self) -> list[str]:
        """Merge what waits into the rows that are kept, which are found by their places: see `_kept`."""
        arrived = self._rows(f"waiting_{self.source}", self._kept(f"stored.{self.name}", place=", rowid as place"))
        made = f"create or replace temp table arrived as\n{arrived}"
        others = _follow() if self.name == "connections" else []
        return [made, *others, merge(self.name, self._columns, "arrived"), "drop table arrived"]

    @property
    def _columns(self) -> list[str]:
        """Those of the rows that are kept."""
        derived = re.findall(r" as (\w+),?$", self.final, re.MULTILINE)
        verdict = _VERDICT if self.name == "connections" else ()
        return [*self.keys, *self.aggregates, *derived, *verdict, *self._hashes]

    @property
    def _hashes(self) -> dict[str, str]:
        """Columns of the rows that are kept which are hashes of ids, with their formulas."""
        every = _hashes() if self.source == "spans" else {}
        return {name: formula for name, formula in every.items() if self.name == "connections" or name == _TRACE_HASH}

    @property
    def _found_by(self) -> tuple[str, str]:
        """The column by which rows are found, and what it is of a row that is being made."""
        first = self.keys[0]
        return (_TRACE_HASH, f"({self._hashes[_TRACE_HASH]})::uinteger") if self._hashes else (first, first)

    @property
    def tail(self) -> str:
        """Make the tail anew, from what waits."""
        rows = self._rows(f"waiting_{self.source}", self._kept(f"stored.{self.name}"))
        return f"create or replace table tail.main.{self.name} as\n{rows}"

    @property
    def advance(self) -> list[str]:
        """Merge what waits since the tail was made into it.

        Not by `merge into`, which costs twice as much here: it updates every column of a row by itself.
        """
        tail, keys = f"tail.main.{self.name}", ", ".join(self.keys)
        column = self._found_by[0]
        others = self._kept(f"stored.{self.name}", f" and {column} not in (select {column} from {tail})")
        rows = self._rows(f"waiting_{self.source}", self._kept(tail) + others)
        return [
            f"create or replace temp table arrived as\n{rows}",
            f"delete from {tail} where ({keys}) in (select ({keys}) from arrived)",
            f"insert into {tail} by name from arrived",
        ]

    def _kept(self, table: str, others: str = "", place: str = "") -> str:
        """Begins a union with the rows of a table that may be merged with those of `fresh`.

        They are found by a hash of the trace's id, and then read by their places: DuckDB reads all columns around each
        row that it looks for, and the ids of traces are random. All rows of a hash go together: so the tail has all of
        those of which it has one. (Of 100 million spans, comparing ids took five times as long as comparing hashes.)

        Args:
            others: leaves out some of them.
            place: selects where each is, too.
        """
        columns = ", ".join((*self.keys, *self.aggregates))
        column, made = self._found_by
        places = f"select rowid from {table} where {column} in (select {made} from fresh){others}"
        return f"select {columns}{place} from {table} where rowid in ({places})\nunion all by name\n"

    def _rows(self, arrived: str, kept: str = "") -> str:
        """Rows with all that is derived from them.

        Args:
            kept: begins a union with other rows of the same keys.
        """
        keys = ", ".join(self.keys)
        fresh = re.sub(rf"^from {self.source}$", f"from {arrived}", self.partial, flags=re.MULTILINE)
        merges = ",\n".join(f"{_MERGE[kind].format(name)} as {name}" for name, kind in self.aggregates.items())
        place = ",\nmax(place) as place" if "as place" in kept else ""
        merged = f"select {keys},\n{merges}{place}\nfrom (\n{kept}from fresh\n) group by {keys}"
        return f"with fresh as materialized (\n{fresh}\n),\nmerged as (\n{merged}\n),\n{self._derived()}"

    def _derived(self) -> str:
        """The end of a statement whose `merged` has the merged columns."""
        final = self.final.replace(f"* exclude ({', '.join(self.inner)})", "*")
        hashes = "".join(f", ({formula})::uinteger as {name}" for name, formula in self._hashes.items())
        rows = f"(\n{_select('verdicts')}\n)" if self.name == "connections" else self.name
        return f"{self.name} as (\n{final}\n)\nselect *{hashes} from {rows}"

    def views(self, kind: str, tail: str | None = None) -> list[str]:
        """What reports read: the kept rows, or those of `tail` and the kept rows of all else.

        Args:
            kind: `view` for the file, `temp view` for a reader's connection.
            tail: the table of the complete rows of what waits.
        """
        hidden = {self.name: (*self.inner, *self._hashes)}
        if self.name == "connections":
            hidden |= {"connections": (*hidden["connections"], *_VERDICT), "verdicts": hidden["connections"], "ids": ()}
        return [f"create {kind} {name} as\n{self._seen(name, columns, tail)}" for name, columns in hidden.items()]

    def _seen(self, name: str, hidden: tuple[str, ...], tail: str | None) -> str:
        rows = f"select {_all_but(hidden)} from "
        kept = _kept_ids() if name == "ids" else f"{rows}stored.{self.name}"
        if tail is None:
            return kept
        if name == "ids":
            return f"select * from (\n{kept}\n) anti join {tail} as touched using (trace_id)\nunion all\n{_ids(tail)}"
        column = self._found_by[0]
        return f"{kept} where {column} not in (select {column} from {tail})\nunion all\n{rows}{tail}"


def _all_but(columns: tuple[str, ...]) -> str:
    return f"* exclude ({', '.join(columns)})" if columns else "*"


def _hashes() -> dict[str, str]:
    """The columns that `ids` reads instead of computing them, with their formulas; kept with `connections`."""
    return {f"{found[1]}_hash": found[0] for found in _HASH.finditer(definition("ids"))}


def _ids(connections: str) -> str:
    """`ids` of the rows of a table that has their hashes."""
    return _HASH.sub(r"\1_hash", _select("ids")).replace("from connections", f"from {connections}")


def _entries(connections: str) -> str:
    """What `stored.ids` has of the rows of a table that has their hashes."""
    trace_hash = f"({_hashes()['trace_hash']})::uinteger as trace_hash"
    return f"select id_hash, kind, start_ns, {trace_hash} from (\n{_ids(connections)}\n)"


def _kept_ids() -> str:
    """`ids` of the kept rows: those of which an entry says when they began and the hash of their trace id.

    The first of the two finds their row group, and is compared as a range, because DuckDB looks for several numbers at
    once in whole row groups only; the second tells apart what began at the same nanosecond.
    An entry is never taken back: one whose attempt began earlier than was known, or is forgotten, finds nothing.
    """
    kinds = re.findall(r"'(\w+)' as kind", _select("ids"))
    id, id_hash = (
        "case kind " + " ".join(f"when '{kind}' then kept.{kind}_{what}" for kind in kinds) + " end"
        for what in ("id", "hash")
    )
    return (
        f"select distinct id_hash, {id} as id, kind, trace_id, kept.start_ns, last_seen_ns\n"
        "from (from stored.ids union all from stored.ids_recent) as entries\n"
        "join stored.connections as kept on kept.trace_hash = entries.trace_hash\n"
        "and kept.start_ns >= entries.start_ns and kept.start_ns <= entries.start_ns\n"
        f"where id_hash = {id_hash}"
    )


def sort_ids() -> list[str]:
    """Statements that sort the entries of ids, each once, without those of attempts that are forgotten."""
    return [
        "create or replace table stored.ids as\n"
        "select distinct * from (from stored.ids union all from stored.ids_recent)\n"
        "semi join stored.connections using (start_ns, trace_hash) order by id_hash",
        _IDS_RECENT,
    ]


def compute() -> list[str]:
    """Statements that make anew what follows from `stored.connections`: the entries of ids, sessions and episodes."""
    ids = f"create or replace table stored.ids as\n{_entries('stored.connections')} order by id_hash"
    return [ids, _IDS_RECENT, *(group.computed for group in GROUPED)]


_IDS_RECENT: Final = "create or replace table stored.ids_recent as from stored.ids limit 0"

MERGED: Final = tuple(Merged.read(name) for name in ("connections", "steps", "ingest"))
GROUPED: Final = tuple(
    Grouped(name, _select(name), f"{kind}_id", f"{kind}_hash", _hashes()[f"{kind}_hash"])
    for name, kind in (("sessions", "session"), ("episodes", "episode"))
)
DEFINED: Final = {
    "connections": ("trace_id",),
    "verdicts": ("trace_id",),
    "ids": ("kind", "trace_id"),
    "steps": ("trace_id", "step"),
    **{relation.name: (relation.key,) for relation in GROUPED},
}
"""The relations that can be computed from all spans again, with their keys."""
TABLES: Final = ("requests", "ids", "ids_recent", *(one.name for one in MERGED), *(one.name for one in GROUPED))
"""What `stored` keeps besides spans and journals."""


def _follow() -> list[str]:
    """Statements that change what follows from the attempts in `arrived`, before these are stored."""
    as_they_were = "from stored.connections where rowid in (select place from arrived)"
    return [
        f"insert into stored.ids_recent\n{_entries('arrived')}",
        *(
            statement
            for group in GROUPED
            for statement in (
                *group.note(f"(select {group.hash} from arrived union all select {group.hash} {as_they_were})"),
                *group.regroup,
            )
        ),
    ]


def forget() -> list[str]:
    """Statements that forget the attempts in `forgotten`, but for their spans."""
    return [
        *(note for group in GROUPED for note in group.note("stored.connections semi join forgotten using (trace_id)")),
        *(f"delete from stored.{name} where trace_id in (from forgotten)" for name in ("connections", "steps")),
        "create or replace temp table arrived as select *, rowid as place from stored.connections limit 0",
        *(statement for group in GROUPED for statement in group.regroup),
        "drop table arrived",
    ]


def other(side: str) -> str:
    """The journal that receives while this one is folded, or the one that is folded while this one receives."""
    return SIDES[1 - SIDES.index(side)]


def tables() -> list[str]:
    """Statements that make what is on disk."""
    return [
        "create schema stored",
        "create table stored.held (i bigint)",  # empty but for moments: see Store.tend and Store.compact
        spans(),
        *(journal(side) for side in SIDES),
        definition("ledger").replace("create table ledger (", "create temp table ledger ("),
        *(relation.table for relation in MERGED),
        "drop table ledger",
        *compute(),
    ]


def spans() -> str:
    """The statement that makes the table of spans."""
    return _stored("spans")


def _stored(name: str) -> str:
    return definition(name).replace(f"create table {name} (", f"create table stored.{name} (")


def requests() -> str:
    """The statement that makes the table of requests that were taken.

    Of another definition than before only `opening.SCHEMA_VERSION` tells: `fingerprint` would compute all rows anew.
    """
    return _stored("requests")


def last_rows(table: str, most: int) -> str:
    """Name the rows that were stored last, from `from` on; not in a transaction that stores some: until it ends, their
    rowids are beyond all others."""
    return f"from stored.{table} where rowid > (select max(rowid) from stored.{table}) - {most}"


def keep_requests(most: int) -> list[str]:
    """Forget all but the last requests, in a new table: deleted rows would keep their room until a compaction."""
    return [
        f"create or replace temp table kept as {last_rows('requests', most)} order by rowid",
        "drop table stored.requests",
        requests(),
        "insert into stored.requests from kept",
        "drop table kept",
    ]


def journal(side: str) -> str:
    """The statement that makes one journal."""
    return f"create table stored.journal_{side} (source varchar not null, batch blob not null)"


def plain_views() -> list[str]:
    """Names of the files that define a view of which no rows are kept, each after those that it reads from."""
    texts = {file.stem: file.read_text(encoding="utf-8") for file in _folder().glob("*.sql")}
    texts = {name: text for name, text in texts.items() if f"create view {name} as" in text}
    reads = {name: set(re.findall(r"\b(?:from|join) (\w+)", text)) & texts.keys() for name, text in texts.items()}
    return [name for name in graphlib.TopologicalSorter(reads).static_order() if name not in (*TABLES, "verdicts")]


def fingerprint() -> str:
    """Two words, of which the first changes with the definitions of rows that are kept, and the second with views."""
    texts = ("".join(tables()), "".join((*definitions(), *views())))
    return " ".join(hashlib.sha256(text.encode()).hexdigest() for text in texts)


def columns(name: str) -> list[tuple[str, str]]:
    """Name and type of the columns of one of `SOURCES`, in the order of its definition."""
    return re.findall(r"^  (\w+) (\w+)", definition(name), re.MULTILINE)


def texts() -> list[str]:
    """The VARIANT columns of `spans`, which wait as JSON text."""
    return [name for name, kind in columns("spans") if kind == "variant"]


def readable(text: str) -> str:
    """Whether a JSON text becomes a VARIANT: a condition. DuckDB dies of one that is nested too deep, which only a long
    one can be; so that is tried before it is written down."""
    tried = f"{text}::json::variant is not null"
    return f"case when {text} is null then true when strlen({text}) < 4000 then json_valid({text}) else {tried} end"


def values() -> str:
    """Select spans that wait as they will be stored."""
    listed = (f"{name}::json::variant as {name}" if kind == "variant" else name for name, kind in columns("spans"))
    return f"select {', '.join(listed)} from waiting_spans"


def defined(name: str) -> str:
    """Select what the definition of a relation says of all spans."""
    if name not in (relation.name for relation in MERGED):
        return f"with connections as (\n{_select('connections')}\n)\nfrom (\n{_select(name)}\n)"
    return _select(name)


def definitions() -> list[str]:
    """Statements that make views of all stored spans, and the relations computed from these."""
    listed = ", ".join(name for name, _ in columns("spans"))
    return [
        "create schema definition",
        f"create view main.spans as select {listed} from stored.spans",
        *(
            f"create view definition.{name} as\n"
            + re.sub(r"^from spans$", "from main.spans", defined(name), flags=re.M)
            for name in DEFINED
        ),
    ]


def views() -> list[str]:
    """Statements that make the views of kept rows in the file, and those that read from them."""
    return [
        *(view for one in MERGED for view in one.views("view")),
        *(group.view("view") for group in GROUPED),
        *(definition(name) for name in plain_views()),
    ]


def tail() -> list[str]:
    """Statements that make the tail anew, from all that waits."""
    return [relation.tail for relation in MERGED]


def advance() -> list[str]:
    """Statements that merge into the tail what waits since it was made."""
    return [statement for relation in MERGED for statement in relation.advance]


def empty_tail() -> list[str]:
    """Statements that make the tail's tables."""
    return [f"create table tail.main.{relation.name} as from stored.{relation.name} limit 0" for relation in MERGED]


def reading() -> list[str]:
    """Statements by which a connection reads what is stored and what waits, under the names that reports know."""
    listed = ", ".join(name for name, _ in columns("spans"))
    return [
        f"create temp view spans as select {listed} from stored.spans union all {values()}",
        *(view for relation in MERGED for view in relation.views("temp view", f"tail.main.{relation.name}")),
        *(group.view("temp view", "tail.main.connections") for group in GROUPED),
        *(definition(name).replace("create view", "create temp view") for name in plain_views()),
    ]
