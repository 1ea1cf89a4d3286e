"""Ask a store the questions of `queries/support/`: SQL lives there, one file a question."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import pyarrow as pa

from telemetry import settings

Row = dict[str, Any]


class Source(Protocol):
    """What answers SQL with rows: a store, or whatever stands for one."""

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table: ...


@cache
def _text(question: str) -> str:
    return (settings.data_folder("queries") / "support" / f"{question}.sql").read_text(encoding="utf-8")


@cache
def _nulls(question: str) -> Mapping[str, None]:
    """Every parameter of a question, with nothing in it."""
    return dict.fromkeys(re.findall(r"\$(\w+)", _text(question)))


def ask(source: Source, question: str, params: Mapping[str, object] | None = None) -> list[Row]:
    """The rows that answer one file of `queries/support/`; parameters that are not given are null."""
    return ask_table(source, question, params).to_pylist()  # type: ignore[no-any-return]


def ask_table(source: Source, question: str, params: Mapping[str, object] | None = None) -> pa.Table:
    """The same as one Arrow table."""
    return source.query(_text(question), {**_nulls(question), **(params or {})})


def of_these(traces: Sequence[Row]) -> dict[str, object]:
    """The parameters that name attempts, out of which traces they are and when they were."""
    return {
        "trace_ids": [row["trace_id"] for row in traces],
        "since": min(row["from_ns"] for row in traces),
        "until": max(row["to_ns"] for row in traces),
    }


def hashed(ids: Sequence[str]) -> list[int]:
    """The hashes of ids, as queries/schema/ids.sql makes them: a store finds a number that it is given at once."""
    digests = (hashlib.md5(id.encode(), usedforsecurity=False).digest() for id in ids)
    return [int.from_bytes(digest[8:12], "little") for digest in digests]
