"""Whom to ask: the server that holds the store while it runs, else the store's file itself.

One process owns the file, so while `telemetry serve` runs, everyone else asks it over HTTP; the rows are the same.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from telemetry import settings
from telemetry.errors import BadParameter, ReportError, ServerError, SessionNotFound, UnknownReport

if TYPE_CHECKING:
    import httpx
    import pyarrow as pa

    from telemetry.store.duck import Store

ANSWER_LIMIT_S: Final = 60.0
"""Longer than the server's own limit of a query, so that its explanation arrives."""
HEALTH_LIMIT_S: Final = 2.0


class Source(Protocol):
    """Answers reports and tells stories."""

    url: str | None
    """The server's address; None means that a file answers."""

    def report(self, name: str, params: Mapping[str, object], *, now_ns: int | None = None) -> "pa.Table":
        """Run one report.

        Args:
            params: values as on the command line, or as Python objects.
            now_ns: what relative times count back from; None means now. A server uses its own clock.

        Raises:
            UnknownReport: there is none of that name.
            BadParameter: a parameter is unknown, missing or of the wrong form.
        """

    def story(self, id: str) -> dict[str, Any]:
        """Tell what happened to one session, as JSON has it.

        Raises:
            SessionNotFound: nothing has that id.
        """

    def info(self) -> dict[str, Any]:
        """What the store holds, as JSON has it."""


class Server:
    """A running `telemetry serve`."""

    def __init__(self, client: "httpx.Client") -> None:
        self.url: str | None = str(client.base_url).rstrip("/")
        self._client = client

    def report(self, name: str, params: Mapping[str, object], *, now_ns: int | None = None) -> "pa.Table":
        from telemetry import formats

        texts = {key: _text(value) for key, value in params.items() if value is not None}
        answer = self._get(f"/api/reports/{quote(name, safe='')}", {**texts, "format": "arrow"})
        return formats.from_arrow(answer.content)

    def story(self, id: str) -> dict[str, Any]:
        told: dict[str, Any] = self._get(f"/api/sessions/{quote(id, safe='')}").json()
        return told

    def info(self) -> dict[str, Any]:
        told: dict[str, Any] = self._get("/api/store").json()
        return told

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> "httpx.Response":
        import httpx

        try:
            answer = self._client.get(path, params=params)
        except httpx.HTTPError as error:
            raise ServerError(
                f"{self._client.base_url} does not answer: {error}; is `telemetry serve` running?"
            ) from error
        if answer.is_success:
            return answer
        raise _error_of(answer)


class File:
    """A store's file, opened for as long as the questions last."""

    def __init__(self, store: "Store") -> None:
        self.url: str | None = None
        self._store = store

    def report(self, name: str, params: Mapping[str, object], *, now_ns: int | None = None) -> "pa.Table":
        from telemetry import reports

        return reports.execute(name, params, self._store, now_ns=now_ns)

    def story(self, id: str) -> dict[str, Any]:
        from telemetry.support import story

        told: dict[str, Any] = story.tell(id, self._store).to_dict()
        return told

    def info(self) -> dict[str, Any]:
        return dict(self._store.info())


@contextmanager
def opened(given: "Store | str | os.PathLike[str] | None" = None) -> Iterator[Source]:
    """Find whom to ask.

    Args:
        given: a server's address, a store's file, or an open Store, which stays open;
            None means `TELEMETRY_SERVER`, else the default store.

    Raises:
        ServerError: the server does not answer.
        StoreError: there is no store, or it cannot be read.
    """
    if given is not None and not isinstance(given, str | os.PathLike):
        yield File(given)
        return
    chosen = os.fspath(given) if given else os.environ.get(settings.SERVER_VARIABLE)
    if chosen and chosen.startswith(("http://", "https://")):
        with _client(chosen) as client:
            yield Server(client)
        return
    path = settings.store_path(chosen)
    url = serving_url(path)
    if url:
        with _client(url) as client:
            yield Server(client)
        return
    from telemetry.store.duck import Store

    with Store.open(path, read_only=True) as store:
        yield File(store)


def notice_path(store_path: Path) -> Path:
    """The file beside a store that says which process serves it."""
    path = store_path.expanduser().resolve()
    return path.with_name(path.name + ".serve.json")


def otlp_endpoint(store_path: Path) -> str:
    """Where to send spans for a store over OTLP/gRPC: to the server that holds it, else to the standard port."""
    try:
        return str(json.loads(notice_path(store_path).read_text())["otlp_grpc"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"http://{settings.LOOPBACK}:{settings.OTLP_GRPC_PORT}"


def serving_url(store_path: Path) -> str | None:
    """The address of the server that holds a store; None if there is none that answers."""
    import httpx

    try:
        notice = json.loads(notice_path(store_path).read_text())
        url = str(notice["url"])
        health = httpx.get(f"{url}/api/health", timeout=HEALTH_LIMIT_S, trust_env=False).json()
        # A killed server leaves its notice behind, and the server of another store may have its port by now.
        return url if health["pid"] == notice["pid"] else None
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError):
        return None


def _client(url: str) -> "httpx.Client":
    import httpx

    tokens = settings.tokens()
    headers = {"Authorization": f"Bearer {tokens[0]}"} if tokens else {}
    here = settings.is_loopback(httpx.URL(url).host)
    return httpx.Client(base_url=url, headers=headers, timeout=ANSWER_LIMIT_S, trust_env=not here)


def _text(value: object) -> str:
    """A parameter's value as a URL carries it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value // timedelta(microseconds=1)}us"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _error_of(answer: "httpx.Response") -> Exception:
    """The error that the server met, as it would have been raised here."""
    try:
        told = answer.json()["error"]
        message, kind = str(told["message"]), told["type"]
    except (ValueError, KeyError, TypeError):
        return ServerError(f"{answer.url} answered {answer.status_code}; is it a telemetry server?")
    nearest = tuple(told.get("nearest", ()))
    match kind:
        case "UnknownReport":
            return UnknownReport(message, name="", nearest=nearest)
        case "BadParameter":
            return BadParameter(message, name="", expected="")
        case "SessionNotFound":
            since_ns, until_ns = told.get("since_ns"), told.get("until_ns")
            return SessionNotFound(message, id="", nearest=nearest, since_ns=since_ns, until_ns=until_ns)
        case "ReportError":
            return ReportError(message)
        case _:
            return ServerError(message)
