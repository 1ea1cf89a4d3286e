"""Ask a report about a few hand-made attempts."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from telemetry import reports
from tests.support.source import MemorySource
from tests.support.spans import T0, Row, table

S = 1_000_000_000
HOUR = 3600 * S
T = T0 - T0 % HOUR
"""A full hour; attempts of these tests begin some seconds after it."""


def ask(name: str, columns: str, *attempts: Iterable[Row], **params: object) -> list[tuple[Any, ...]]:
    """Some columns of a report's rows over the hour from `T`, asked an hour later."""
    params = {"since": T, "until": T + HOUR} | params
    known = {param.name for param in reports.find(name).params}
    if "now" in known:
        params.setdefault("now", T + 2 * HOUR)
    given = {name: value for name, value in params.items() if name in known or name not in ("since", "until")}
    answer = reports.execute(name, given, source_of(*attempts), now_ns=T + 2 * HOUR)
    return [tuple(_plain(row[column]) for column in columns.split()) for row in answer.to_pylist()]


def source_of(*attempts: Iterable[Row]) -> MemorySource:
    """The relations over these attempts alone; the next call changes them."""
    source = _source()
    source.clear()
    source.add(table(*attempts))
    return source


@cache
def _source() -> MemorySource:
    return MemorySource()


def _plain(value: Any) -> Any:
    """A time becomes its seconds after `T`."""
    return (value.value - T) / S if hasattr(value, "tzinfo") else value
