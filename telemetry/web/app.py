"""The pages and the query API: what a browser or a script may ask of a store.

The browser names a report and its parameters; it never sends SQL.
Everything is GET, same-origin, under a strict Content-Security-Policy, and behind the token where there is one.
"""

import asyncio
import base64
import binascii
import os
import re
import threading
import time
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import pyarrow as pa
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry import __version__, formats, reports, settings
from telemetry.errors import ExitCode, SessionNotFound, StoreError, TelemetryError, UnknownReport
from telemetry.support import capsule, find, story
from telemetry.support.asking import ask
from telemetry.support.verdict import judge
from telemetry.threads import ended
from telemetry.tokens import Tokens
from telemetry.web import jaeger, prometheus
from telemetry.web.answers import Answer as Kept
from telemetry.web.answers import Answers
from telemetry.web.files import Files
from telemetry.web.openapi import description

QUERY_LIMIT_S: Final = 30.0
"""A report that takes longer than this is stopped: a page that waits longer has lost its reader."""
QUERIES_AT_ONCE: Final = 2
"""More would only share the same cores; the rest wait their turn."""
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "::1", "[::1]")

_AS_THEY_ARE: Final = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/octet-stream")
"""Is not compressed on its way: a backup of 600 MB would take a core for tens of seconds."""
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # a page's address holds a sessionId
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STATUS: Final = {
    ExitCode.USAGE: 400,
    ExitCode.NOT_FOUND: 404,
    ExitCode.STORE: 503,
    ExitCode.UNAVAILABLE: 503,
}
"""The HTTP status of an error by the exit code of its class: each error is classified once."""


Answer = TypeVar("Answer")


class Source(Protocol):
    """What answers a report's SQL: the store of this process, or a cluster."""

    @property
    def version(self) -> Hashable: ...

    def reader(self) -> AbstractContextManager["Reader"]: ...


class Reader(Protocol):
    """Asks one thing after another."""

    def query(
        self, sql: str, params: Mapping[str, object] | None = None, *, timeout_s: float | None = None
    ) -> pa.Table: ...

    def cancel(self) -> None: ...


def pages_app(
    source: Source,
    *,
    info: Callable[[], Mapping[str, Any]] | None = None,
    tokens: Sequence[str] = (),
    hosts: Sequence[str] = LOOPBACK_NAMES,
    more: Sequence[BaseRoute] = (),
    figures: Callable[[], list[prometheus.Figure]] = list,
    receives: bool = True,
) -> ASGIApp:
    """Make the ASGI application of the pages and the query API.

    Args:
        source: answers the reports; asked from other threads, several at once.
        info: what `/api/store` says of the store; None leaves it out.
        tokens: any one of them opens the door; none means that everyone on this machine may look.
        hosts: names under which a browser may ask, against pages elsewhere that rebind their name to this address.
        more: further paths, behind the same guards.
        figures: further metrics, asked whenever `/metrics` is.
        receives: False means that telemetry arrives elsewhere, and that counting what has come would cost a scan.
    """
    api = _Api(source, info, figures, receives)
    files = Files(settings.data_folder("dashboards"), lambda name: _describe(reports.find(name)))

    async def overview(request: Request) -> Response:
        return files.page("page", request)

    async def session(request: Request) -> Response:
        # The browser asks for the story while it still reads the page: by the same path, which the page's own has.
        page = files.page("session", request)
        story = f"/api{request.scope['raw_path'].decode()}" + (f"?{request.url.query}" if request.url.query else "")
        page.headers["Link"] = f"<{story}>; rel=preload; as=fetch; crossorigin"
        return page

    return Starlette(
        routes=[
            Route("/", overview),
            Route("/sessions/{id:path}", session),
            Route("/api/health", api.health),
            Route("/api/openapi.json", api.openapi),
            Route("/api/store", api.store),
            Route("/api/pulse", api.pulse),
            Route("/metrics", api.metrics),
            Route("/api/pages/{name}", files.described),
            Route("/api/reports", api.menu),
            Route("/api/reports/{name}", api.report),
            Route("/api/sessions/{id:path}", api.session),
            Route("/api/find", api.find, methods=["POST"]),
            Route("/api/verdicts", api.verdicts),
            Route("/api/capsules/{id:path}", api.capsule),
            *jaeger.routes(api, api.ask),
            *more,
            Route("/static/{version}/{name:path}", files.loaded),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(_Stops),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(_Tokens, tokens=tuple(tokens)),
            Middleware(GZipMiddleware, minimum_size=1000, exclude_content_types=_AS_THEY_ARE),
        ],
        exception_handlers={
            TelemetryError: _telemetry_error,
            HTTPException: _http_error,
            ClientDisconnect: _gone_away,
        },
    )


class _Api:
    def __init__(
        self,
        source: Source,
        info: Callable[[], Mapping[str, Any]] | None,
        figures: Callable[[], list[prometheus.Figure]],
        receives: bool,
    ) -> None:
        self._source = source
        self._receives = receives
        self._info = info
        self._figures = figures
        self._turns = asyncio.Semaphore(QUERIES_AT_ONCE)
        self._answers = Answers()

    async def ask(self, question: Callable[[], Answer]) -> Answer:
        """Run a question in a thread when its turn comes; cancelled, it ends what it has asked of the store.

        All that it asks is answered from one state of the store: a story is told of one moment.
        """
        async with self._turns:
            asking = Asking(self._source)
            thread = asyncio.ensure_future(asyncio.to_thread(asking.answer, question))
            await ended(thread, asking.cancel)
            return thread.result()

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """Ask the store, but not for ever: what reports and stories see of it."""
        return _READER.get().query(sql, params, timeout_s=QUERY_LIMIT_S)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__, "pid": os.getpid(), "receives": self._receives})

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(description(reports.catalogue()))

    async def store(self, request: Request) -> Response:
        if self._info is None:
            raise HTTPException(404, "this server tells nothing of its store")
        return JSONResponse(formats.jsonable(await self.ask(self._info)))

    async def pulse(self, request: Request) -> Response:
        """Answer with a number that changes when telemetry arrives: pages ask it often, and reports only then."""
        return JSONResponse({"pulse": hash(self._source.version)})

    async def metrics(self, request: Request) -> Response:
        def asked() -> str:
            more = self._figures()  # first: it asks the store by itself, and must not wait while this question reads
            rows = self.query(prometheus.QUESTION).to_pylist()
            spans = None
            if self._receives:
                spans = self.query("select count(*) as spans from spans").column(0)[0].as_py()
            return prometheus.text(prometheus.figures(rows, spans, __version__) + more)

        return Response(await self.ask(asked), media_type=prometheus.MEDIA_TYPE)

    async def menu(self, request: Request) -> Response:
        return JSONResponse([_describe(report) for report in reports.catalogue().values()])

    async def report(self, request: Request) -> Response:
        params = dict(request.query_params)
        format = params.pop("format", "json")
        if format not in formats.MEDIA_TYPES:
            raise HTTPException(400, f"no format {format!r}; there are {', '.join(formats.MEDIA_TYPES)}")
        name = request.path_params["name"]
        report, now_ns = reports.find(name), time.time_ns()
        moving = report.bind(params, now_ns) != report.bind(params, now_ns + 1)
        # The version is asked before the rows, so that rows which arrive in between are asked for again.
        version = self._source.version
        answering = self._answers.of(
            (name, format, *sorted(params.items())),
            version,
            partial(self.ask, partial(self._answer, name, params, format)),
            moving=moving,
        )
        answer = await _while_wanted(request, answering)
        return answer.response(request)

    def _answer(self, name: str, params: Mapping[str, str], format: str) -> Kept:
        table = reports.execute(name, params, self)
        if format == "json":
            columns = [{"name": field.name, "type": str(field.type)} for field in table.schema]
            told = JSONResponse({"report": name, "columns": columns, "rows": formats.to_rows(table)})
            return Kept(bytes(told.body), formats.MEDIA_TYPES["json"])
        headers = {"Content-Disposition": f'attachment; filename="{name}.{format}"'}
        return Kept(formats.to_bytes(table, format), formats.MEDIA_TYPES[format], headers)

    async def session(self, request: Request) -> Response:
        about = request.query_params.get("about")
        about_ns = _ns(about) if about else None
        tell = partial(story.tell, request.path_params["id"], self, about_ns=about_ns)
        told = await _while_wanted(request, self.ask(tell))
        return JSONResponse(formats.jsonable(told.to_dict()))

    async def find(self, request: Request) -> Response:
        """Which id is in a pasted text? By POST: what a log line has beside it belongs in no address."""
        text = b""
        async for chunk in request.stream():
            text += chunk
            if len(text) > find.LONGEST_TEXT:
                raise HTTPException(413, f"the text has more than {find.LONGEST_TEXT} bytes; paste one line of it")
        found = await self.ask(partial(find.resolve, text.decode("utf-8", "replace"), self))
        return JSONResponse({"kind": found.kind, "id": found.id, "attempt_id": found.attempts[0].attempt_id})

    async def verdicts(self, request: Request) -> Response:
        """Each attempt's verdict in one sentence: what a list shows beside it."""
        ids = request.query_params.getlist("attempt_id")
        try:
            since, until = (int(request.query_params[name]) for name in ("since_ns", "until_ns"))
        except (KeyError, ValueError):
            raise HTTPException(400, "give since_ns and until_ns: when the attempts began, in nanoseconds") from None

        def judged() -> dict[str, str]:
            rows = ask(self, "facts_of", {"attempt_ids": ids, "since": since, "until": until})
            return {row["attempt_id"]: judge(row).sentence for row in rows}

        return JSONResponse(await _while_wanted(request, self.ask(judged)))

    async def capsule(self, request: Request) -> Response:
        """Everything about one attempt as one file to save: never a page of this origin."""
        packed = await _while_wanted(request, self.ask(partial(capsule.pack, request.path_params["id"], self)))
        name = re.sub(r"[^\w.-]", "_", packed.attempt_id)
        headers = {"Content-Disposition": f'attachment; filename="{name}.capsule.html"'}
        return Response(packed.to_html(), media_type="text/html", headers=headers)


class Asking:
    """What one request asks of the store. `answer` runs in a thread, `cancel` in another."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._reader: Reader | None = None
        """Only while the question is answered: afterwards it is somebody else's."""
        self._left = False
        self._changing = threading.Lock()

    def answer(self, question: Callable[[], Answer]) -> Answer:
        with self._source.reader() as reader:
            with self._changing:
                if self._left:
                    raise StoreError("nobody waits for the answer")
                self._reader = reader
            _READER.set(reader)
            try:
                return question()
            finally:
                with self._changing:
                    self._reader = None

    def cancel(self) -> None:
        with self._changing:
            self._left = True
            if self._reader:
                self._reader.cancel()


_READER: Final[ContextVar[Reader]] = ContextVar("reader")
"""What answers the question of this thread."""
_NO_PAGE: Final = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>No such page</title>
<main><h1>There is no such page</h1><p><a href="/">Digital person sessions</a></p></main></html>
"""


async def _while_wanted(request: Request, answering: Coroutine[Any, Any, Answer]) -> Answer:
    """Wait for an answer, and end it when whoever asked has gone: a page that was closed costs nothing more."""
    answer, gone = asyncio.ensure_future(answering), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise HTTPException(499, "nobody waits for the answer")
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _describe(report: reports.Report) -> dict[str, Any]:
    params = [
        {
            "name": param.name,
            "type": param.type,
            "default": param.default,
            "choices": list(param.choices),
            "required": param.required,
            "help": param.help,
        }
        for param in report.params
    ]
    return {
        "name": report.name,
        "question": report.question,
        "params": params,
        "returns": report.returns,
        "notes": report.notes,
        "sql": report.sql,
    }


def _ns(iso: str) -> int:
    try:
        moment = datetime.fromisoformat(iso)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * 10**9
    except (ValueError, OverflowError):
        raise HTTPException(400, f"about takes an ISO 8601 time, and was given {iso!r}") from None


async def _telemetry_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TelemetryError)
    body: dict[str, Any] = {"type": type(error).__name__, "message": error.message}
    if isinstance(error, UnknownReport | SessionNotFound):
        body["nearest"] = list(error.nearest)
    if isinstance(error, SessionNotFound):
        body |= {"since_ns": error.since_ns, "until_ns": error.until_ns, "about_ns": error.about_ns}
    return JSONResponse({"error": body}, _STATUS.get(error.exit_code, 500))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = error.detail
    if message == "Not Found":  # Starlette's, where no path fits
        if "text/html" in request.headers.get("accept", ""):
            return Response(_NO_PAGE, 404, media_type="text/html")
        message = "there is nothing at this path; /api/openapi.json says what can be asked"
    body = {"error": {"type": "HTTPException", "message": message}}
    return JSONResponse(body, error.status_code, headers=error.headers)


async def _gone_away(request: Request, error: Exception) -> Response:
    """What nobody reads; an error would be logged."""
    return Response(status_code=499)


class _Stops:
    """Answer what a stop breaks off."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            if not begun:
                message = "the server stops and could not finish this answer; ask again when it is back"
                error = {"type": "ServerError", "message": message}
                await JSONResponse({"error": error}, 503, headers={"Retry-After": "2"})(scope, receive, send)


class _Headers:
    """Add the headers that every answer carries."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")  # an answer is true only now
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _Tokens:
    """Ask for a token: `Authorization: Bearer TOKEN`, or as the password of the browser's own dialogue."""

    def __init__(self, app: ASGIApp, tokens: tuple[str, ...]) -> None:
        self._app = app
        self._tokens = Tokens(tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._tokens or scope["type"] != "http" or scope["path"] == "/api/health" or self._knows(scope):
            await self._app(scope, receive, send)
            return
        message = "this server asks for a token; the CLI takes it from TELEMETRY_TOKEN, a browser as the password"
        refusal = JSONResponse(
            {"error": {"type": "Unauthorized", "message": message}},
            401,
            headers={"WWW-Authenticate": 'Basic realm="telemetry", charset="UTF-8"'},
        )
        await refusal(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        return self._tokens.know(_token_of(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")))


def _token_of(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            try:
                return base64.b64decode(value, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return ""
        case _:
            return ""
