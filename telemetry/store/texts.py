"""Try the JSON texts that become VARIANT before they are written down."""

from typing import Final

import duckdb
import pyarrow as pa

from telemetry.errors import DecodeError
from telemetry.store import relations
from telemetry.store.statements import execute, registered

FEW_BYTES: Final = 64 * 1024
"""Of different texts in a commit: so few are often those of the last one, and remembering them spares it 3 ms."""
MOST: Final = 256
"""Remembered; then all are forgotten."""

_READABLE: Final = f"select bool_and({relations.readable('text')}) from texts"


class Texts:
    """Asks DuckDB whether it will read them; of those that repeat, once. One thread at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._readable: set[str] = set()

    def check(self, spans: pa.Table) -> None:
        """Try those of all spans.

        Raises:
            DecodeError: one is no JSON.
        """
        texts = pa.chunked_array([spans[name].unique().drop_null() for name in relations.texts()])
        few = texts.nbytes <= FEW_BYTES
        if few:
            texts = pa.chunked_array([list(set(texts.to_pylist()) - self._readable)], pa.string())
        if not len(texts):
            return
        with registered(self._connection, texts=pa.table({"text": texts})):
            if not execute(self._connection, _READABLE).fetchall()[0][0]:
                raise DecodeError("the spans cannot be stored: their attributes, events or links are no JSON")
        if few:
            self._readable = {*self._readable, *texts.to_pylist()} if len(self._readable) < MOST else set()
