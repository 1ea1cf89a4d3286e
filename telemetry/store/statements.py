"""What all of the store does on a connection of DuckDB."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import duckdb
import pyarrow as pa

_MOST: Final = 512
"""Texts remembered; then all are forgotten. Reports, and what the store itself asks, are some 200."""
_parsed: dict[str, duckdb.Statement] = {}
"""By text. A statement knows no connection, and is copied for each execution."""


def execute(
    connection: duckdb.DuckDBPyConnection, sql: str, params: Mapping[str, object] | Sequence[object] | None = None
) -> duckdb.DuckDBPyConnection:
    """As `connection.execute`, but statements that come again, on any connection, are parsed only once.

    Parsing takes 1 ms for 2 KB of SQL, and those that keep the tail up to date have 25 KB: a fifth of what a query
    takes that comes after a commit.
    """
    return connection.execute(_parsed.get(sql) or _parse(connection, sql), params)


def _parse(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement | str:
    """The statement; of several in one text, the text."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        return sql
    if len(_parsed) >= _MOST:
        _parsed.clear()
    _parsed[sql] = statements[0]
    return statements[0]


@contextlib.contextmanager
def registered(connection: duckdb.DuckDBPyConnection, **tables: pa.Table | None) -> Iterator[None]:
    """Let SQL read Arrow tables by name in the block; of None, nothing."""
    for name, table in tables.items():
        if table is not None:
            connection.register(name, table)
    try:
        yield
    finally:
        for name in tables:
            with contextlib.suppress(duckdb.Error):
                connection.unregister(name)


def roll_back(connection: duckdb.DuckDBPyConnection) -> duckdb.Error | None:
    """End the transaction, if there is one.

    Returns:
        What prevents it, too little memory, say: then the transaction is in the way of others until the file is opened
        again. Some failures end the transaction by themselves; then nothing does.
    """
    try:
        connection.execute("rollback")
    except duckdb.InterruptException:  # meant for the query that ended just before
        return roll_back(connection)
    except duckdb.Error as error:
        return None if "no transaction is active" in str(error) else error
    return None
