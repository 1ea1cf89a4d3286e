"""Ask a ClickHouse cluster: `clickhouse://user@host:port/database`, as a source that reports and stories take.

An answer is whole or an error: a node that is down fails the query, and nothing is taken from the others alone.
"""

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa

from telemetry import settings
from telemetry.cluster import schema
from telemetry.cluster.dialect import check, translated, type_of
from telemetry.errors import StoreError, UsageError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

PASSWORD_VARIABLE: Final = "CLICKHOUSE_PASSWORD"
QUERY_LIMIT_S: Final = 60.0
CONNECT_LIMIT_S: Final = 5.0
MEMORY_LIMIT_BYTES: Final = 8 * 2**30
FRESH_S: Final = 10.0
"""How long an answer is taken for true: what a Collector gathers before it exports is seconds old, too."""
_AGAIN_S: Final = 0.1
"""A query that has not begun yet cannot be cancelled, so that is repeated."""
SETTINGS: Final[Mapping[str, object]] = {
    "join_use_nulls": 1,
    "prefer_column_name_to_alias": 1,
    "cast_keep_nullable": 1,
    "session_timezone": "UTC",
    "distributed_product_mode": "global",
    "optimize_skip_unused_shards": 1,
    "compile_expressions": 0,  # took 0.7 s of CPU for `failure_rate`, once on each node, and no report was sooner
    "do_not_merge_across_partitions_select_final": 1,  # a span that comes twice has the same day: others are not read
    "skip_unavailable_shards": 0,
    "readonly": 2,  # whoever asks changes nothing, and is what the next line asks for
    "cancel_http_readonly_queries_on_client_close": 1,
    "aggregate_functions_null_for_empty": 0,
    "max_memory_usage": MEMORY_LIMIT_BYTES,
    "max_execution_time": QUERY_LIMIT_S,
    "timeout_overflow_mode": "throw",
}
"""What brings ClickHouse's nulls and names to SQL's rules, and never lets an answer be partial."""

WHERE_KNOWN: Final[Mapping[str, int]] = {
    "enable_adaptive_aggregator": 0,
    "group_by_two_level_threshold_bytes": 0,
    "use_statistics": 0,
}
"""Settings that older servers may lack.
Without the first two the attempts of a week come out of merging in 256 blocks of some hundred each, and the dozens of
conditions of `verdicts` cost more to begin, block by block, than to compute: of 10 million spans `failure_rate` over
7 days took 1.5 s of CPU, and takes 0.5 s.
Statistics of columns change no plan of ours, and cost 10 ms of CPU a question where there are 90 days."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a cluster is; its repr has no password."""

    host: str
    port: int
    user: str
    database: str
    secure: bool

    def __str__(self) -> str:
        scheme = "clickhouses" if self.secure else "clickhouse"
        return f"{scheme}://{self.user}@{self.host}:{self.port}/{self.database}"


def read(url: str) -> tuple[Address, str]:
    """An address and the password: the URL's, else that of `CLICKHOUSE_PASSWORD`.

    `clickhouses://`, or `?secure=true`, is TLS. The ports are those of ClickHouse's HTTP interface.

    Raises:
        UsageError: it cannot be read; the message does not repeat it, as it may have a password.
    """
    form = "clickhouse://user@host:port/database"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"the store's address cannot be read; it should be {form}") from error
    options = parse_qs(parts.query)
    database = unquote(parts.path.strip("/")) or "default"
    if not parts.hostname or "/" in database or set(options) - {"secure"}:
        raise UsageError(f"the store's address cannot be read; it should be {form}, and ?secure=true for TLS")
    secure = parts.scheme == "clickhouses" or options.get("secure", ["false"])[-1].lower() in ("true", "1", "yes")
    address = Address(
        parts.hostname, port or (8443 if secure else 8123), unquote(parts.username or "default"), database, secure
    )
    password = unquote(parts.password) if parts.password else os.environ.get(PASSWORD_VARIABLE, "")
    return address, password


class Cluster:
    """A ClickHouse cluster, asked through one of its nodes, by several threads at once."""

    def __init__(self, client: "Client", address: Address, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self._client = client
        self._clock = clock

    @property
    def version(self) -> Hashable:
        """Another one every `FRESH_S`: nothing counts what arrives from everywhere, and asking would cost a scan."""
        return int(self._clock() // FRESH_S)

    def query(
        self, sql: str, params: Mapping[str, object] | None = None, *, timeout_s: float | None = None
    ) -> pa.Table:
        """Answer one statement of DuckDB's SQL.

        Raises:
            ReportError: the statement has no equal in ClickHouse.
            StoreError: the cluster cannot answer, or not in time.
        """
        with self.reader() as reader:
            return reader.query(sql, params, timeout_s=timeout_s)

    @contextmanager
    def reader(self) -> "Iterator[Reader]":
        """Asks one thing after another; another thread may cancel it."""
        yield Reader(self._client, self.address)

    def info(self) -> dict[str, Any]:
        """What the cluster holds, for `telemetry store info` and the pages.

        Raises:
            StoreError: it cannot answer.
        """
        facts = self.query(
            "select count(*) as connections, count(distinct session_id) as sessions, min(start_ns) as first_ns, "
            "max(last_seen_ns) as last_ns, max(received_ns) as last_received_ns from connections"
        ).to_pylist()[0]
        with errors_of(self.address):
            nodes = self._client.query(
                "select cluster, count(), uniqExact(shard_num) from system.clusters where cluster in ("
                "select extract(engine_full, 'Distributed[^a-zA-Z0-9_]+([a-zA-Z0-9_]+)') from system.tables "
                "where database = {database:String} and name = 'connections') group by cluster",
                {"database": self.address.database},
            ).result_rows
        cluster, replicas, shards = nodes[0] if nodes else (None, 1, 1)
        return {
            "address": str(self.address),
            "clickhouse": str(self._client.server_version),
            "cluster": cluster,
            "shards": shards,
            "nodes": replicas,
            **facts,
        }


class Reader:
    """Asks a cluster, one query at a time; `cancel` may come from any thread. Made by `Cluster.reader`."""

    def __init__(self, client: "Client", address: Address) -> None:
        self._client = client
        self._address = address
        self._busy = threading.Lock()
        self._cancelled = False
        self._query_id = ""

    def query(
        self, sql: str, params: Mapping[str, object] | None = None, *, timeout_s: float | None = None
    ) -> pa.Table:
        """As `Cluster.query`; a StoreError, too, when it was cancelled."""
        given = dict(params or {})
        types = tuple((name, type_of(value)) for name, value in given.items())
        statement = translated(sql, "the statement", types, of_short_range=schema.is_short(given))
        limits: dict[str, object] = {} if timeout_s is None else {"max_execution_time": timeout_s}
        limits |= schema.horizon(given)
        bound = {name: value for name, value in given.items() if value is not None}
        with self._busy, errors_of(self._address):
            if self._cancelled:
                raise StoreError("the query was cancelled")
            self._query_id = uuid.uuid4().hex
            limits["query_id"] = self._query_id
            answer = self._client.query_arrow(statement, bound, settings=limits, use_strings=True)
        return _like_duckdb(answer)

    def cancel(self) -> None:
        """End the query that runs, on all nodes, wait until it has ended, and refuse the next ones."""
        self._cancelled = True
        while not self._busy.acquire(timeout=_AGAIN_S):
            with contextlib.suppress(StoreError), errors_of(self._address):
                self._client.command("kill query where query_id = {id:String} async", {"id": self._query_id})
        self._busy.release()


@contextmanager
def connected(
    url: str,
    database: str | None = None,
    settings: Mapping[str, object] | None = None,
    *,
    connect_limit_s: float = 10.0,
    answer_limit_s: float = 300.0,
) -> "Iterator[tuple[Client, Address]]":
    """Connect to one node; what the client raises becomes a StoreError.

    Args:
        database: None means the one in the address.
        settings: of ClickHouse, for every statement.

    Raises:
        UsageError: the address cannot be read, or the extra `clickhouse` is not installed.
        StoreError: the node does not answer, or refuses.
    """
    address, password = read(url)
    try:
        import clickhouse_connect
    except ImportError as error:
        raise UsageError("asking ClickHouse needs its client: pip install 'dp-telemetry[clickhouse]'") from error
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # what it meets is raised, not printed
    with errors_of(address):
        client = clickhouse_connect.get_client(
            host=address.host,
            port=address.port,
            username=address.user,
            password=password,
            database=database or address.database,
            secure=address.secure,
            autogenerate_session_id=False,  # questions may come side by side
            settings=dict(settings or {}),
            connect_timeout=connect_limit_s,
            send_receive_timeout=answer_limit_s,
        )
        try:
            yield client, address
        finally:
            client.close()


@contextmanager
def opened(url: str) -> Iterator[Cluster]:
    """Connect to a cluster, for as long as the questions last.

    Raises:
        UsageError: the address cannot be read, or the extra `clickhouse` is not installed.
        StoreError: no node answers there, or it refuses.
    """
    later = QUERY_LIMIT_S + 10  # than the server's own limit, so that its explanation arrives
    with connected(url, settings=SETTINGS, connect_limit_s=CONNECT_LIMIT_S, answer_limit_s=later) as (client, address):
        for name in WHERE_KNOWN.keys() & client.server_settings.keys():
            client.set_client_setting(name, WHERE_KNOWN[name])
        check_catalogue()
        _check_schema(client, address)
        yield Cluster(client, address)


def _check_schema(client: "Client", address: Address) -> None:
    """Refuse a schema of another release.

    Raises:
        SchemaMismatch: what is on disk is of a later version.
        StoreError: its definitions are of another release, and would answer otherwise.
    """
    found = schema.found(client, address)
    if found and not found.is_current:
        raise StoreError(f"{address} has the definitions of another release; bring it up with `telemetry store init`")


@cache
def check_catalogue() -> None:
    """Refuse questions that ClickHouse would answer otherwise than DuckDB, before any is asked.

    Raises:
        ReportError: names the file and the construct.
    """
    folder = settings.data_folder("queries")
    for file in sorted(folder.rglob("*.sql")):
        if file.parent.name != "schema":
            check(file.read_text("utf-8"), str(file.relative_to(folder)))


_EXPLAINED: Final = (
    (("AUTHENTICATION_FAILED", "REQUIRED_PASSWORD"), "refuses the user or the password; set CLICKHOUSE_PASSWORD"),
    (("UNKNOWN_DATABASE",), "has no database {database}; `telemetry store init --store {address}` makes it"),
    (("UNKNOWN_TABLE",), "lacks the relations that reports read; `telemetry store init --store {address}` makes them"),
    (
        ("UNKNOWN_IDENTIFIER",),
        "has a schema of another version; `telemetry store init --store {address}` brings it up to date",
    ),
    (("TIMEOUT_EXCEEDED",), "did not answer within its time limit; ask for a shorter range"),
    (("MEMORY_LIMIT_EXCEEDED",), "needs more memory than its limit; ask for a shorter range"),
    (("QUERY_WAS_CANCELLED",), "cancelled the query"),
    (("ALL_CONNECTION_TRIES_FAILED", "NETWORK_ERROR"), "cannot reach one of its nodes, so there is no whole answer"),
    (("executing HTTP request",), "does not answer; is that ClickHouse's HTTP port, and does it run?"),
)


@contextmanager
def errors_of(address: Address) -> Iterator[None]:
    """Turn what the client raises into a StoreError that says what happened."""
    from clickhouse_connect.driver.exceptions import ClickHouseError

    try:
        yield
    except ClickHouseError as error:
        told = str(error)
        for codes, meaning in _EXPLAINED:
            if any(code in told for code in codes):
                explained = meaning.format(address=address, database=address.database)
                raise StoreError(f"{address} {explained}") from error
        raise StoreError(f"{address} cannot answer: {told[:500]}") from error


def _like_duckdb(table: pa.Table) -> pa.Table:
    """ClickHouse's types as DuckDB has them: signed whole numbers, texts, doubles."""
    fields = []
    for field in table.schema:
        kind = field.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_integer(kind):
            kind = pa.int64()
        elif pa.types.is_large_string(kind) or pa.types.is_binary(kind):
            kind = pa.string()
        elif pa.types.is_floating(kind):
            kind = pa.float64()
        fields.append(pa.field(field.name, kind))
    return table.cast(pa.schema(fields))
