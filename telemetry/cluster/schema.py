"""What a ClickHouse cluster holds: the statements that make it, and how to tell what is there.

A stock Collector writes into `otel_traces`, which keeps nothing: materialized views take each span further.

    otel_traces → incoming_spans (shares spans out by trace) → stored_spans
                                                               → stored_connections, stored_steps, stored_samples
    stored_connections → incoming_ids (shares ids out by their hash) → stored_ids

`stored_…` are what is on a shard's disk.
`…_local` are the relations of one shard, by the definitions in `queries/schema/` that are also DuckDB's.
The relations that reports read, under their own names, are those of all shards together.

- **Sharded by trace id.** An attempt is one trace, and what is computed from spans is of one attempt: nothing of it
  crosses shards, and who has an attempt asks one shard. A session id would not do: a failed attempt has none, and one
  that succeeds has none in its first spans, so a trace would be torn apart. `sessions` and `episodes`, which group
  attempts, are merged by the node that is asked, from what each shard has aggregated.
- **Ids by their hash.** `ids` alone has shards of its own, so that who looks one up asks one shard for the attempts
  that it names, and then those that have these (`telemetry.cluster.shards`). Each piece of an attempt brings the ids
  that it knows, with its own times: those in `ids` are within the attempt's, and may be less, as a session's id comes
  after its attempt began.
- **Twice is once.** Senders repeat themselves. Spans replace their like, by trace and span id; all else is a minimum,
  a maximum or a set, to which a repeated span adds nothing. A count of spans is the size of the set of their ids.
- **Late is in time.** An attempt is kept in pieces, one of each insertion, by the day of the last thing heard in it.
  The pieces of a day merge in the background, and every question merges what is left.
- **Days.** Everything is partitioned by day. A question with `since` and `until` reads no piece that is beyond these by
  more than `LONGEST_SESSION_NS`; the setting `log_comment` carries the limits to the shards.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import sqlglot
from sqlglot import exp

from telemetry.cluster.dialect import translated
from telemetry.errors import SchemaMismatch
from telemetry.semconv import COLUMNS, MAX_TYPED_FLOAT, MAX_TYPED_INT, Column
from telemetry.store.relations import Merged, definition

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from telemetry.cluster.source import Address

VERSION: Final = 2
"""Of what is on disk: counts up when a `stored_…` table changes. Views are made anew whenever their text changes."""
VERSION_VIEW: Final = "telemetry_schema"
"""Says which version is there; replaced when all else is done, so that what was interrupted is done again."""
_TOLD: Final = "toInt64OrNull(extract(getSetting('log_comment'), '^telemetry .*{}_ns=([0-9]+)'))"
_SINCE: Final = f"ifNull({_TOLD.format('since')}, 0)"
_UNTIL: Final = f"ifNull({_TOLD.format('until')}, {2**63 - 1})"
"""`log_comment` is the one setting for texts of one's own that every server has and hands on to the shards."""
LONGEST_SESSION_NS: Final = 7 * 86_400 * 10**9
"""Of a session that lives longer, a report whose range begins meanwhile sees the end alone, and one whose range ended
by then the beginning alone."""

_LOOK_BACK_NS: Final = 86_400 * 10**9
"""How far beyond its range a report looks for what belongs together."""

MERGED: Final = tuple(Merged.read(name) for name in ("connections", "steps", "ingest"))
_DERIVED: Final = ("durations", "verdicts")
"""Views over one attempt's rows, so each shard has its own."""
_GROUPED: Final = ("sessions", "episodes")
"""Views over many attempts' rows."""
SHARDED: Final = ("spans", "connections", "ids", "steps", "samples", "ingest", *_DERIVED)
RELATIONS: Final = (*SHARDED, *_GROUPED)

_ID_KEYS: Final = "id_hash, id, kind, trace_id"
_ID_COLUMNS: Final = {
    "id_hash": "UInt32",
    "id": "String",
    "kind": "LowCardinality(String)",
    "trace_id": "String",
    "start_ns": "SimpleAggregateFunction(min, Int64)",
    "last_seen_ns": "SimpleAggregateFunction(max, Int64)",
}

_TYPES: Final = {"varchar": "String", "bigint": "Int64", "double": "Float64", "boolean": "Bool", "variant": "String"}
_MANY_VALUES: Final = ("status_message", "message", "close_reason", "trace_state", "example")
"""Texts that repeat themselves too little for a dictionary; ids are others."""
_DAY_NS: Final = {
    "spans": "start_ns",
    "samples": "at_ns",
    "connections": "last_seen_ns",
    "ids": "last_seen_ns",
    "steps": "last_seen_ns",
}
"""By whose day a table is partitioned. A span that is sent again has the same day, and a merged piece keeps its own."""
_EARLIEST_NS, _LATEST_NS = 0, 7_258_118_400_000_000_000
"""What the receiver of `telemetry serve` takes, too: until 2200."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the statements apply."""

    database: str
    cluster: str | None = None
    """Of `system.clusters`. None means that one server holds everything."""
    replicated: bool = False
    """Whether a shard has several replicas."""
    on_cluster: bool = False
    """Whether a statement reaches all nodes, which takes Keeper; otherwise it runs on each."""
    keep_days: int | None = None
    """What is older is forgotten. None keeps everything."""

    def named(self, name: str) -> str:
        return f"`{self.database}`.`{name}`"

    def create(self, what: str, name: str) -> str:
        return f"create {what} {self.named(name)}{self._everywhere}"

    def alter(self, name: str) -> str:
        return f"alter table {self.named(name)}{self._everywhere}"

    @property
    def create_database(self) -> str:
        return f"create database if not exists `{self.database}`{self._everywhere} engine = Atomic"

    @property
    def _everywhere(self) -> str:
        return f" on cluster '{self.cluster}'" if self.on_cluster else ""


def horizon(params: Mapping[str, object]) -> dict[str, str]:
    """The setting that keeps a question from reading pieces older or younger than any that it asks for."""
    since, until = params.get("since"), params.get("until")
    if not isinstance(since, int):
        return {}
    last = until if isinstance(until, int) else since
    if "before_since" in params:  # a report that looks back: as far as it is told, else by its own length
        before, before_until = params["before_since"], params.get("before_until")
        since = min(since, before if isinstance(before, int) else 2 * since - last)
        last = max(last, before_until if isinstance(before_until, int) else last)
    beyond = _LOOK_BACK_NS + LONGEST_SESSION_NS
    told = f"telemetry since_ns={max(0, since - beyond)}"
    return {"log_comment": f"{told} until_ns={last + beyond}" if isinstance(until, int) else told}


def is_short(params: Mapping[str, object]) -> bool:
    """Whether a range is no longer than what is read beyond it: then most of what would be merged is not asked for.

    Of 10 million spans `failure_rate` over 7 days took 0.46 s of CPU, and takes 0.33 s where the attempts of the range
    are named first; over 90 days that made reports of steps take twice the CPU.
    """
    since, until = params.get("since"), params.get("until")
    if not isinstance(since, int) or not isinstance(until, int) or "before_since" in params:
        return False
    return until - since <= LONGEST_SESSION_NS


@cache
def fingerprint() -> str:
    """Changes whenever a definition changes, so that an older schema is brought up to date."""
    return hashlib.sha256("".join(statements(Layout("d", "c"))).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Found:
    """The schema that a server has."""

    version: int
    fingerprint: str
    """Empty if it was not brought up to date to the end."""
    clustered: bool

    @property
    def is_current(self) -> bool:
        return (self.version, self.fingerprint) == (VERSION, fingerprint())


def found(client: "Client", address: "Address") -> Found | None:
    """The schema that is there; None if there is none, or if it was not made to the end.

    Raises:
        SchemaMismatch: it is of a later version.
    """
    tables = {"database": address.database, "version": VERSION_VIEW}
    known = client.query(
        "select name from system.tables where database = {database:String} "
        "and name in ({version:String}, 'incoming_spans')",
        tables,
    ).result_rows
    names = {row[0] for row in known}
    if VERSION_VIEW not in names:
        return None
    rows = client.query(
        f"select version, fingerprint, release from `{address.database}`.{VERSION_VIEW} order by version desc limit 1"
    ).result_rows
    version, fingerprint, release = rows[0] if rows else (1, "", "")
    if version > VERSION:
        raise SchemaMismatch(
            f"the schema in {address} has version {version}, and this release knows {VERSION}; "
            f"use release {release} or newer of telemetry",
            path=str(address),
            found=version,
            expected=VERSION,
        )
    return Found(version, fingerprint, "incoming_spans" in names)


def statements(layout: Layout) -> list[str]:
    """Statements that make the schema, or bring one of this version up to date; they may be repeated."""
    return [
        layout.create_database,
        layout.create("table if not exists", "otel_traces") + _OTEL_TRACES,
        *_stored(layout, "spans", _span_columns(), "ReplacingMergeTree", "trace_id, span_id"),
        *_stored(layout, "samples", _sample_columns(), "ReplacingMergeTree", "trace_id, span_id"),
        *(
            statement
            for relation in MERGED
            for statement in _stored(
                layout, relation.name, _piece_columns(relation), "AggregatingMergeTree", ", ".join(relation.keys)
            )
        ),
        *_incoming(layout, "spans", "cityHash64(trace_id)"),
        # what comes last on the way is made first, so that no span passes by what is not there yet
        *_ids_filled(layout),
        *(
            statement
            for name in ("connections", "steps")
            for statement in _fill(layout, name, "stored_spans", f"stored_{name}", _pieces(Merged.read(name)))
        ),
        *_fill(layout, "samples", "stored_spans", "stored_samples", _flat(_select("samples"), "stored_spans")),
        *_fill(layout, "ingest", "otel_traces", "stored_ingest", _INGEST_OF_COLLECTOR),
        *_fill(layout, "spans", "otel_traces", _target(layout, "spans"), _spans_of_collector()),
        *(_view(layout, f"{name}_local", text) for name, text in _local_views()),
        *(_everywhere(layout, name) for name in SHARDED),
        *(_view(layout, name, _flat(_select(name), "connections")) for name in _GROUPED),
    ]


def upgrade(layout: Layout, version: int) -> list[str]:
    """Statements that bring what is on disk from a version to the next one; they may be repeated."""
    return _UPGRADES[version](layout)


def mark(layout: Layout, version: int, fingerprint: str, release: str) -> str:
    """The statement that says which version is there."""
    told = f"select toUInt32({version}) as version, '{fingerprint}' as fingerprint, '{release}' as release"
    return _view(layout, VERSION_VIEW, told)


def _ids_filled(layout: Layout) -> Iterator[str]:
    yield from _stored(layout, "ids", _ID_COLUMNS, "AggregatingMergeTree", _ID_KEYS)
    yield from _incoming(layout, "ids", "id_hash")
    yield from _fill(layout, "ids", "stored_connections", _target(layout, "ids"), _ids_of_pieces())


def _fill_ids(layout: Layout) -> list[str]:
    """Tell `ids` of the attempts that were there before it: of this node, or of all where a statement reaches all.

    A node that cannot take them yet is told later.
    """
    pieces = layout.named("stored_connections")
    if layout.on_cluster:
        pieces = f"cluster('{layout.cluster}', {pieces})"
    select = _ids_of_pieces().replace("from stored_connections", f"from {pieces}")
    settings = "distributed_foreground_insert = 0, max_partitions_per_insert_block = 0"
    return [*_ids_filled(layout), f"insert into {layout.named(_target(layout, 'ids'))}\nsettings {settings}\n{select}"]


_UPGRADES: Final[dict[int, Callable[[Layout], list[str]]]] = {1: _fill_ids}
"""From each version to the next one."""


def _engine(layout: Layout, name: str) -> str:
    return f"Replicated{name}" if layout.replicated else name


def _stored(layout: Layout, name: str, columns: dict[str, str], engine: str, order: str) -> Iterator[str]:
    """A table on disk, and how long it keeps rows."""
    moment = _DAY_NS.get(name, "minute_ns")
    day = f"toDate(fromUnixTimestamp64Nano({moment}, 'UTC'))"
    codec = " codec(ZSTD(1))" if name == "spans" else ""  # most of the room, and the least read
    listed = ",\n".join(f"  `{column}` {kind}{codec}" for column, kind in columns.items())
    yield (
        layout.create("table if not exists", f"stored_{name}") + f" (\n{listed}\n) "
        f"engine = {_engine(layout, engine)}\npartition by {day}\norder by ({order})\nsettings ttl_only_drop_parts = 1"
    )
    if layout.keep_days is not None:
        yield f"{layout.alter(f'stored_{name}')} modify ttl {day} + toIntervalDay({layout.keep_days})"


def _incoming(layout: Layout, name: str, key: str) -> Iterator[str]:
    """Shares rows out over the shards."""
    if layout.cluster:
        engine = f"Distributed('{layout.cluster}', '{layout.database}', 'stored_{name}', {key})"
        yield (
            layout.create("table if not exists", f"incoming_{name}") + f" as {layout.named(f'stored_{name}')} "
            f"engine = {engine} settings fsync_after_insert = 1, fsync_directories = 1"
        )


def _target(layout: Layout, name: str) -> str:
    """Where rows are inserted."""
    return f"incoming_{name}" if layout.cluster else f"stored_{name}"


def _fill(layout: Layout, name: str, source: str, target: str, select: str) -> Iterator[str]:
    """What an insertion into one table adds to another; its query is changed in place, so no insertion misses it."""
    text = select.replace(f"from {source}", f"from {layout.named(source)}")
    yield layout.create("materialized view if not exists", f"fill_{name}") + f" to {layout.named(target)} as\n{text}"
    yield f"{layout.alter(f'fill_{name}')} modify query\n{text}"


def _view(layout: Layout, name: str, select: str) -> str:
    text = re.sub(r"\b(from|join) (\w+)", lambda m: f"{m[1]} {_in_database(layout, m[2])}", select, flags=re.IGNORECASE)
    return layout.create("or replace view", name) + f" as\n{text}"


def _in_database(layout: Layout, table: str) -> str:
    known = table in RELATIONS or table.startswith("stored_") or table.removesuffix("_local") in RELATIONS
    return layout.named(table) if known else table


def _everywhere(layout: Layout, name: str) -> str:
    """One shard's relation as that of all shards."""
    if layout.cluster is None:
        return _view(layout, name, f"select * from {name}_local")
    key = {"ingest": "rand()", "ids": "id_hash"}.get(name, "cityHash64(trace_id)")
    return (
        layout.create("or replace table", name) + f" as {layout.named(f'{name}_local')} "
        f"engine = Distributed('{layout.cluster}', '{layout.database}', '{name}_local', {key})"
    )


def _local_views() -> Iterator[tuple[str, str]]:
    yield "spans", "select * from stored_spans final"
    yield "samples", "select * from stored_samples final"
    times = "min(kept.start_ns) as start_ns, max(kept.last_seen_ns) as last_seen_ns"
    yield "ids", f"select {_ID_KEYS}, {times} from stored_ids as kept group by {_ID_KEYS}"
    for relation in MERGED:
        yield relation.name, _merged(relation)
    for name in _DERIVED:
        text = re.sub(r"\bfrom (connections|steps)\b", r"from \1_local", _select(name))
        yield name, translated(text, name, ())


def _select(name: str) -> str:
    """What a file of `queries/schema/` defines."""
    return definition(name).partition(f"create view {name} as\n")[2].rstrip().rstrip(";")


@cache
def _flat(select: str, source: str) -> str:
    """A select from one relation in ClickHouse's SQL, reading it under another name.

    Columns get their relation's name: otherwise `start_ns` would mean `min(start_ns) as start_ns` in ClickHouse.
    """
    tree = sqlglot.parse_one(select, read="duckdb")
    for column in tree.find_all(exp.Column):
        if not column.table:
            column.set("table", exp.to_identifier("kept"))
    for node in tree.find_all(exp.In):
        if any(isinstance(value, exp.Column) for value in node.expressions):  # ClickHouse finds null in no list
            node.replace(exp.paren(exp.or_(*(node.this.eq(value) for value in node.expressions))))
    text = translated(tree.sql(dialect="duckdb"), "queries/schema", ())
    return re.sub(r"\bFROM (?:spans|connections)\b", f"from {source} as kept", text)


def _pieces(relation: Merged) -> str:
    """What an insertion of spans says of each attempt or step."""
    return _flat(relation.partial, "stored_spans").replace(
        "COUNT(*) AS span_count", "groupUniqArray(reinterpretAsUInt64(unhex(kept.span_id))) AS span_count"
    )


def _ids_of_pieces() -> str:
    """What pieces of attempts say of `ids`, each as one select: a materialized view has no union."""
    columns, kinds = zip(*re.findall(r"(\w+) as id,\n  ('\w+') as kind", _select("ids")), strict=True)
    id_hash = translated("select md5_number_lower(known) % 4294967296 as id_hash", "ids", ()).removeprefix("SELECT ")
    return (
        f"select {id_hash}, assumeNotNull(known) as id, kind, trace_id, start_ns, last_seen_ns\n"
        "from stored_connections\n"
        f"array join [{', '.join(columns)}] as known, [{', '.join(kinds)}] as kind\nwhere known is not null"
    )


def _merged(relation: Merged) -> str:
    """The rows of one shard: pieces merged, and what the definition derives from them."""
    columns = ",\n".join(
        (
            *(f"  kept.{key} as {key}" for key in relation.keys),
            *(f"  {_MERGE[kind].format(f'kept.{name}')} as {name}" for name, kind in relation.aggregates.items()),
        )
    )
    moment = f"kept.{_DAY_NS.get(relation.name, 'minute_ns')}"
    recent = f"where {moment} >= {_SINCE} and {moment} < {_UNTIL}"
    keys = ", ".join(f"kept.{key}" for key in relation.keys)
    final = translated(f"with merged as (select 1) {relation.final}", relation.name, ())
    _, _, outer = final.partition(") ")
    merged = f"select\n{columns}\nfrom stored_{relation.name} as kept\n{recent}\ngroup by {keys}"
    return f"with merged as (\n{merged}\n)\n{outer}"


_MERGE: Final = {
    "min": "min({0})",
    "max": "max({0})",
    "bool_or": "max({0})",
    "count": "toInt64(length(groupUniqArrayArray({0})))",
    "sum": "sum({0})",
}
_FUNCTIONS: Final = {"min": "min", "max": "max", "bool_or": "max", "sum": "sum"}


def _piece_columns(relation: Merged) -> dict[str, str]:
    """The columns of pieces: keys as they are, the rest as what they merge by."""
    kinds = _columns_of(relation.source)
    found = {key: kinds.get(key, ("String" if key != "minute_ns" else "Int64", True))[0] for key in relation.keys}
    if "step" in found:
        found["step"] = "LowCardinality(String)"
    for name, function in relation.aggregates.items():
        if function == "count":
            found[name] = "SimpleAggregateFunction(groupUniqArrayArray, Array(UInt64))"
            continue
        kind, _ = kinds[_argument(relation, name)]
        certain = name == _DAY_NS.get(relation.name) or function == "sum"
        kind = kind if certain else f"Nullable({kind})"
        found[name] = f"SimpleAggregateFunction({_FUNCTIONS[function]}, {_packed(name, kind)})"
    return found


def _argument(relation: Merged, name: str) -> str:
    """The first column that a merged column is made of."""
    match = re.search(rf"\w+\((\w+).* as {name}\b", relation.partial)
    assert match
    return match[1]


def _columns_of(table: str) -> dict[str, tuple[str, bool]]:
    """Column to its type and whether it may be null, as `queries/schema/` writes them."""
    lines = re.findall(r"^  (\w+) (varchar|bigint|double|boolean|variant)( not null)?", definition(table), re.MULTILINE)
    return {name: (_TYPES[kind], not certain) for name, kind, certain in lines}


def _span_columns() -> dict[str, str]:
    return {
        name: _packed(name, f"Nullable({kind})" if maybe else kind)
        for name, (kind, maybe) in _columns_of("spans").items()
    }


def _sample_columns() -> dict[str, str]:
    spans = _span_columns() | {"at_ns": "Int64"}
    tree = sqlglot.parse_one(_select("samples"), read="duckdb")
    assert isinstance(tree, exp.Select)
    return {name: spans[name] for name in tree.named_selects}


def _packed(name: str, kind: str) -> str:
    """A column's type as it takes the least room."""
    if "String" not in kind:
        return kind
    many = name.endswith("_id") or name in _MANY_VALUES or "attributes" in name or name in ("events", "links")
    return kind if many or name == "resource_entity_refs" else f"LowCardinality({kind})"


def _spans_of_collector() -> str:
    """Spans as the Collector's exporter writes them, in the columns of `spans`; texts of its maps are read again."""
    typed = [f"{_read(column)} as {column.name}" for column in COLUMNS]
    columns = ",\n  ".join((*_SPAN, *typed, *_REST))
    return f"select\n  {columns}\nfrom otel_traces\nwhere {_TAKEN}"


def _read(column: Column) -> str:
    """A typed column out of the maps; null where the text is not of its type."""
    spans = f"SpanAttributes['{column.span}']" if column.span else ""
    resource = f"ResourceAttributes['{column.resource}']" if column.resource else ""
    match column.type:
        case "text":
            texts = [f"nullIf({text}, '')" for text in (spans, resource) if text]
            return texts[0] if len(texts) == 1 else f"coalesce({', '.join(texts)})"
        case "bool":
            return f"multiIf({spans} = 'true', true, {spans} = 'false', false, null)"
        case "int":
            number = f"toInt64OrNull({spans})"
            return f"if(abs({number}) < {MAX_TYPED_INT}, {number}, null)"
        case "float":
            number = f"toFloat64OrNull({spans})"
            return f"if(abs({number}) < {MAX_TYPED_FLOAT:g}, {number}, null)"


def _keys(kind: str) -> str:
    return ", ".join(f"'{column.span}'" for column in COLUMNS if column.span and column.type == kind)


_HAVE_COLUMNS: Final = (
    f"(k in ({_keys('text')}) and v != '')"
    f" or (k in ({_keys('bool')}) and v in ('true', 'false'))"
    f" or (k in ({_keys('int')}) and ifNull(abs(toInt64OrNull(v)) < {MAX_TYPED_INT}, false))"
    f" or (k in ({_keys('float')}) and ifNull(abs(toFloat64OrNull(v)) < {MAX_TYPED_FLOAT:g}, false))"
)
_RESOURCE_KEYS: Final = ", ".join(f"'{column.resource}'" for column in COLUMNS if column.resource and not column.span)
_OTHER_SPAN: Final = f"mapFilter((k, v) -> not ({_HAVE_COLUMNS}), SpanAttributes)"
_OTHER_RESOURCE: Final = f"mapFilter((k, v) -> not (k in ({_RESOURCE_KEYS}) and v != ''), ResourceAttributes)"
_SPAN: Final = (
    "lower(TraceId) as trace_id",
    "lower(SpanId) as span_id",
    "nullIf(lower(ParentSpanId), '') as parent_span_id",
    "nullIf(TraceState, '') as trace_state",
    "SpanName as name",
    "upper(replaceOne(SpanKind, 'SPAN_KIND_', '')) as kind",
    "toUnixTimestamp64Nano(Timestamp) as start_ns",
    "toUnixTimestamp64Nano(Timestamp) + toInt64(Duration) as end_ns",
    "upper(replaceOne(StatusCode, 'STATUS_CODE_', '')) as status_code",
    "nullIf(StatusMessage, '') as status_message",
)
_REST: Final = (
    f"if(empty({_OTHER_SPAN}), null, toJSONString({_OTHER_SPAN})) as attributes",
    f"if(empty({_OTHER_RESOURCE}), null, toJSONString({_OTHER_RESOURCE})) as resource_attributes",
    "nullIf(ScopeName, '') as scope_name",
    "nullIf(ScopeVersion, '') as scope_version",
    "if(empty(`Events.Name`), null, toJSONString(arrayMap((t, n, a) -> cast((toUnixTimestamp64Nano(t), n, a), "
    "'Tuple(time_ns Int64, name String, attributes Map(String, String))'), "
    "`Events.Timestamp`, `Events.Name`, `Events.Attributes`))) as events",
    "if(empty(`Links.TraceId`), null, toJSONString(arrayMap((t, s, w, a) -> cast((t, s, w, a), "
    "'Tuple(trace_id String, span_id String, trace_state String, attributes Map(String, String))'), "
    "`Links.TraceId`, `Links.SpanId`, `Links.TraceState`, `Links.Attributes`))) as links",
    "toUnixTimestamp64Nano(now64(9)) as received_ns",
)
_TAKEN: Final = (
    "match(TraceId, '^[0-9a-fA-F]{32}$') and match(SpanId, '^[0-9a-fA-F]{16}$') "
    f"and toUnixTimestamp64Nano(Timestamp) between {_EARLIEST_NS} and {_LATEST_NS}"
)
"""What else there is has no place among spans; the receiver of `telemetry serve` refuses it."""

_LATENESS_MS: Final = (
    "intDiv(toUnixTimestamp64Nano(now64(9)) - toUnixTimestamp64Nano(Timestamp) - toInt64(Duration), 1000000)"
)
_INGEST_OF_COLLECTOR: Final = f"""select
  intDiv(toUnixTimestamp64Nano(now64(9)), 60000000000) * 60000000000 as minute_ns,
  'otel_traces' as transport,
  if({_TAKEN}, 'accepted', 'malformed') as reason,
  toInt64(1) as requests,
  toInt64(countIf({_TAKEN})) as stored,
  toInt64(0) as duplicates,
  toInt64(countIf(not ({_TAKEN}))) as rejected,
  anyOrNullIf(TraceId, not ({_TAKEN})) as example,
  sumIf({_LATENESS_MS}, {_TAKEN}) as lateness_sum_ms,
  maxIf({_LATENESS_MS}, {_TAKEN}) as lateness_max_ms,
  toInt64(countIf({_TAKEN} and {_LATENESS_MS} > 60000)) as late,
  toInt64(countIf({_TAKEN} and {_LATENESS_MS} < -1000)) as ahead,
  maxOrNullIf(-{_LATENESS_MS}, {_TAKEN} and {_LATENESS_MS} < -1000) as ahead_max_ms
from otel_traces
group by minute_ns, transport, reason"""
"""What arrived. Whether a span was there already is not known then: `duplicates` is 0, and `stored` counts it again."""

_OTEL_TRACES: Final = """ (
  Timestamp DateTime64(9),
  TraceId String,
  SpanId String,
  ParentSpanId String,
  TraceState String,
  SpanName LowCardinality(String),
  SpanKind LowCardinality(String),
  ServiceName LowCardinality(String),
  ResourceAttributes Map(LowCardinality(String), String),
  ScopeName String,
  ScopeVersion String,
  SpanAttributes Map(LowCardinality(String), String),
  Duration UInt64,
  StatusCode LowCardinality(String),
  StatusMessage String,
  Events Nested (
    Timestamp DateTime64(9), Name LowCardinality(String), Attributes Map(LowCardinality(String), String)
  ),
  Links Nested (
    TraceId String, SpanId String, TraceState String, Attributes Map(LowCardinality(String), String)
  )
) engine = Null"""
"""The columns that the Collector's exporter writes. A table of that name that is there already stays as it is."""
