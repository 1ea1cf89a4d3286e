"""The four questions that Jaeger's own pages and Grafana's Jaeger data source ask, answered from the store.

One answer serves the session page too: every span of a trace with every attribute, also as a file for other viewers.
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial
from typing import Any, Final, Protocol

import pyarrow as pa
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from telemetry import settings, traces

MOST_TRACES: Final = 200
_DEFAULT_TRACES: Final = 20
_LOOKBACK_US: Final = 3_600_000_000
_UNITS_NS: Final = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000}
_TAGS: Final = {"session.id": "session_id", "dp.attempt.id": "attempt_id", "error.type": "error_type"}
_HEX_DIGITS: Final = frozenset("0123456789abcdef")


class Source(Protocol):
    """What answers SQL with rows."""

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table: ...


Asking = Callable[[Callable[[], Any]], Awaitable[Any]]


def routes(source: Source, ask: Asking) -> list[Route]:
    """The routes of Jaeger's query API.

    Args:
        source: has the spans.
        ask: runs a question in a thread when its turn comes.
    """

    async def services(request: Request) -> Response:
        found = await ask(partial(_column, source, "services", {}))
        return JSONResponse(_listing(found))

    async def operations(request: Request) -> Response:
        found = await ask(partial(_column, source, "operations", {"service": request.path_params["service"]}))
        return JSONResponse(_listing(found))

    async def search(request: Request) -> Response:
        wanted = _wanted(request.query_params)
        ids = await ask(partial(_column, source, "search", wanted))
        rows = await ask(partial(_rows, source, ids)) if ids else []
        return JSONResponse(traces.to_jaeger(rows))

    async def trace(request: Request) -> Response:
        # Jaeger leaves out leading zeros.
        trace_id = request.path_params["id"].lower().rjust(32, "0")
        format = request.query_params.get("format", "jaeger")
        if format not in traces.FORMATS:
            raise HTTPException(400, f"no format {format!r}; there are {', '.join(traces.FORMATS)}")
        known = len(trace_id) == 32 and _HEX_DIGITS.issuperset(trace_id)
        rows = await ask(partial(_rows, source, [trace_id])) if known else []
        if not rows:
            raise HTTPException(404, "there is no such trace")
        write = {"jaeger": traces.to_jaeger, "chrome": traces.to_chrome, "otlp": traces.to_otlp}[format]
        return JSONResponse(write(rows))

    return [
        Route("/api/services", services),
        Route("/api/services/{service:path}/operations", operations),
        Route("/api/traces", search),
        Route("/api/traces/{id}", trace),
    ]


def _listing(names: list[str]) -> dict[str, Any]:
    return {"data": names, "total": len(names), "limit": 0, "offset": 0, "errors": None}


@cache
def _sql(question: str) -> str:
    return (settings.data_folder("queries") / "jaeger" / f"{question}.sql").read_text("utf-8")


def _column(source: Source, question: str, params: Mapping[str, object]) -> list[str]:
    values: list[str] = source.query(_sql(question), params).column(0).to_pylist()
    return values


def _rows(source: Source, trace_ids: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = source.query(_sql("spans"), {"trace_ids": trace_ids}).to_pylist()
    return rows


def _wanted(given: Mapping[str, str]) -> dict[str, object]:
    """The search that Jaeger's parameters describe; its times are microseconds.

    Raises:
        HTTPException: a parameter is missing or cannot be read.
    """
    if not given.get("service"):
        raise HTTPException(400, "parameter 'service' is required")
    try:
        until_us = int(given.get("end") or time.time_ns() // 1000)
        since_us = int(given.get("start") or until_us - _LOOKBACK_US)
        tags = json.loads(given.get("tags") or "{}")
        if not isinstance(tags, dict):
            raise ValueError("tags must be a JSON object")
        limit = int(given.get("limit") or _DEFAULT_TRACES)
        shortest, longest = _duration(given.get("minDuration")), _duration(given.get("maxDuration"))
    except (ValueError, KeyError) as error:
        raise HTTPException(400, f"a parameter cannot be read: {error}") from error
    failed = {"true": True, "false": False}.get(str(tags.pop("error", "")).lower())
    if unknown := sorted(set(tags) - set(_TAGS)):
        raise HTTPException(400, f"cannot search by {', '.join(unknown)}; only by error, {', '.join(_TAGS)}")
    return {
        "service": given["service"],
        "operation": given.get("operation") or None,
        "since": since_us * 1000,
        "until": until_us * 1000,
        "min_ns": shortest,
        "max_ns": longest,
        **{column: None if tags.get(tag) is None else str(tags[tag]) for tag, column in _TAGS.items()},
        "failed": failed,
        "limit": min(max(limit, 1), MOST_TRACES),
    }


def _duration(text: str | None) -> int | None:
    """`1.5s`, `200ms`, `30us` in nanoseconds; None for nothing."""
    if not text:
        return None
    number = text.rstrip("nuµms")
    return int(float(number) * _UNITS_NS[text[len(number) :]])
