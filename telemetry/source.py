"""Whom to ask: the server that holds the store while it runs, else the store's file itself.

One process owns the file, so while `telemetry serve` runs, everyone else asks it over HTTP; the rows are the same.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from telemetry import settings
from telemetry.errors import BadParameter, ReportError, ServerError, SessionNotFound, StoreError, UnknownReport

if TYPE_CHECKING:
    import ssl

    import httpx
    import pyarrow as pa

    from telemetry.cluster.source import Cluster
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

    def capsule(self, id: str) -> bytes:
        """Everything about one attempt as one scrubbed file.

        Raises:
            SessionNotFound: nothing has that id.
        """

    def info(self) -> dict[str, Any]:
        """What the store holds, as JSON has it."""

    def verify(self) -> list[dict[str, Any]]:
        """How the store compares with its definitions: `store.checks.Check` as JSON has it."""


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

    def capsule(self, id: str) -> bytes:
        return self._get(f"/api/capsules/{quote(id, safe='')}").content

    def info(self) -> dict[str, Any]:
        told: dict[str, Any] = self._get("/api/store").json()
        return told

    def verify(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self._get("/api/store/verify", timeout_s=None).json()
        return told

    def backup(self, target: Path) -> None:
        """Copy the server's store into a file here.

        Raises:
            ServerError: the server cannot be asked, or does not answer to the end.
            StoreError: the file is there already, or cannot be written.
        """
        import httpx

        partial = target.with_name(target.name + ".partial")
        try:
            with (
                self._client.stream(
                    "GET", "/api/store/backup", timeout=None, headers={"Accept-Encoding": "identity"}
                ) as answer,
                partial.open("xb") as file,
            ):
                if not answer.is_success:
                    answer.read()
                    raise _error_of(answer)
                for chunk in answer.iter_bytes(1 << 20):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.link(partial, target)  # fails where a rename would overwrite
        except httpx.HTTPError as error:
            raise self._silent(error) from error
        except OSError as error:
            raise StoreError(f"cannot write the backup {target}: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)

    def _silent(self, error: "httpx.HTTPError") -> ServerError:
        return ServerError(f"{self._client.base_url} does not answer: {error}; is `telemetry serve` running?")

    def _get(
        self, path: str, params: Mapping[str, str] | None = None, *, timeout_s: float | None = ANSWER_LIMIT_S
    ) -> "httpx.Response":
        import httpx

        try:
            answer = self._client.get(path, params=params, timeout=timeout_s)
        except httpx.HTTPError as error:
            raise self._silent(error) from error
        if answer.is_success:
            return answer
        raise _error_of(answer)


class _Direct:
    """Asked here, with SQL: no server of ours is in between."""

    def __init__(self, asked: "Store | Cluster") -> None:
        self.url: str | None = None
        self._asked = asked

    def report(self, name: str, params: Mapping[str, object], *, now_ns: int | None = None) -> "pa.Table":
        from telemetry import reports

        return reports.execute(name, params, self._asked, now_ns=now_ns)

    def story(self, id: str) -> dict[str, Any]:
        from telemetry.support import story

        told: dict[str, Any] = story.tell(id, self._asked).to_dict()
        return told

    def capsule(self, id: str) -> bytes:
        from telemetry.support import capsule

        return capsule.pack(id, self._asked).to_html().encode()


class ClickHouse(_Direct):
    """A ClickHouse cluster, connected to for as long as the questions last."""

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(cluster)
        self._cluster = cluster

    def info(self) -> dict[str, Any]:
        return self._cluster.info()

    def verify(self) -> list[dict[str, Any]]:
        raise settings.not_a_file(str(self._cluster.address), "`telemetry store copy` it into a file, and verify that")

    def backup(self, target: Path) -> None:
        advice = "`telemetry store copy` writes it into a file, and ClickHouse has a BACKUP statement of its own"
        raise settings.not_a_file(str(self._cluster.address), advice)


class File(_Direct):
    """A store's file, opened for as long as the questions last."""

    def __init__(self, store: "Store") -> None:
        super().__init__(store)
        self.store = store

    def info(self) -> dict[str, Any]:
        return dict(self.store.info())

    def verify(self) -> list[dict[str, Any]]:
        from telemetry.store.checks import verify

        return [asdict(check) for check in verify(self.store)]


@contextmanager
def opened(
    given: "Store | str | os.PathLike[str] | None" = None, *, writable: bool = False
) -> "Iterator[Server | File | ClickHouse]":
    """Find whom to ask.

    Args:
        given: the address of a server or of a ClickHouse cluster, a store's file, or an open Store, which stays open;
            None means `TELEMETRY_SERVER`, else `TELEMETRY_STORE`, else the default store.
        writable: open the file for more than reading; one that is not there is not made.

    Raises:
        ServerError: the server does not answer.
        StoreError: there is no store, or it cannot be read.
        UsageError: the address of a cluster cannot be read.
    """
    if given is not None and not isinstance(given, str | os.PathLike):
        yield File(given)
        return
    chosen = os.fspath(given) if given else os.environ.get(settings.SERVER_VARIABLE) or settings.cluster_address()
    if chosen and chosen.startswith(("http://", "https://")):
        with _client(chosen) as client:
            yield Server(client)
        return
    if chosen and settings.cluster_address(chosen):
        from telemetry.cluster import source as cluster

        with cluster.opened(chosen) as connected:
            yield ClickHouse(connected)
        return
    path = settings.store_path(chosen)
    url = serving_url(path)
    if url:
        with _client(url, _certificate(path)) as client:
            yield Server(client)
        return
    from telemetry.store.duck import Store

    with Store.open(path, read_only=not writable, make=False) as store:
        yield File(store)


def notice_path(store_path: Path) -> Path:
    """The file beside a store that says which process serves it."""
    path = store_path.expanduser().resolve()
    return path.with_name(path.name + ".serve.json")


def otlp_endpoint(store_path: Path | None) -> str:
    """Where to send spans for a store over OTLP/gRPC: to the server that holds it, else to the standard port.

    Args:
        store_path: None means a cluster, whose Collector listens at the standard port.
    """
    endpoint = _notice(store_path).get("otlp_grpc") if store_path else None
    return str(endpoint or f"http://{settings.LOOPBACK}:{settings.OTLP_GRPC_PORT}")


def otlp_http_endpoint(store_path: Path) -> str | None:
    """Where the server that holds a store takes OTLP/HTTP; None if there is none that answers."""
    return str(_notice(store_path)["otlp_http"]) if serving_url(store_path) else None


def send(otlp_http: str, request: Mapping[str, Any], store_path: Path) -> None:
    """Send an OTLP/JSON trace request to the server of a store; returns when it is stored.

    Raises:
        ServerError: it was not taken.
    """
    import httpx

    try:
        with _client(otlp_http, _certificate(store_path)) as client:
            answer = client.post("/v1/traces", json=request)
    except httpx.HTTPError as error:
        raise ServerError(f"{otlp_http} does not answer: {error}") from error
    if not answer.is_success:
        raise ServerError(f"{otlp_http} answered {answer.status_code}: {answer.text[:500]}")


def _notice(store_path: Path) -> dict[str, Any]:
    """What the server of a store left beside it; empty if there is nothing that can be read."""
    try:
        notice = json.loads(notice_path(store_path).read_text())
    except (OSError, ValueError):
        return {}
    return notice if isinstance(notice, dict) else {}


def serving_url(store_path: Path) -> str | None:
    """The address of the server that holds a store; None if there is none that answers."""
    import httpx

    notice = _notice(store_path)
    try:
        url = str(notice["url"])
        verify = _verification(_certificate(store_path))
        health = httpx.get(f"{url}/api/health", timeout=HEALTH_LIMIT_S, trust_env=False, verify=verify).json()
        # A killed server leaves its notice behind, and the server of another store may have its port by now.
        return url if health["pid"] == notice["pid"] else None
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError, httpx.InvalidURL):
        return None


def _certificate(store_path: Path) -> Path | None:
    """The certificate of the server of a store; None where it speaks plain text."""
    found = _notice(store_path).get("certificate")
    return Path(found) if isinstance(found, str) else None


def _verification(certificate: Path | None) -> "ssl.SSLContext | bool":
    """What a client believes: what the system trusts, or only the certificate of the server on its own machine.

    Raises:
        OSError, ValueError: the certificate cannot be read.
    """
    if certificate is None:
        return True
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # this very certificate or none, whatever names it has
    first, end, _ = certificate.read_text().partition("-----END CERTIFICATE-----")
    context.load_verify_locations(cadata=first[first.index("-----BEGIN CERTIFICATE-----") :] + end + "\n")
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _client(url: str, certificate: Path | None = None) -> "httpx.Client":
    """Asks a server, and shows the token.

    Args:
        certificate: the only one that the server may have. None means any that the system trusts.

    Raises:
        OSError, ValueError: the certificate cannot be read.
    """
    import httpx

    tokens = settings.tokens()
    headers = {"Authorization": f"Bearer {tokens[0]}"} if tokens else {}
    here = settings.is_loopback(httpx.URL(url).host)
    return httpx.Client(
        base_url=url, headers=headers, timeout=ANSWER_LIMIT_S, trust_env=not here, verify=_verification(certificate)
    )


def _text(value: object) -> str:
    """A parameter's value as a URL carries it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value // timedelta(microseconds=1)}us"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _error_of(answer: "httpx.Response") -> Exception:
    """The error that the server met, as it would have been raised here."""
    if answer.status_code == 401 and "Authorization" in answer.request.headers:
        shown = f"the token that {settings.TOKEN_VARIABLE} holds (of several, the first)"
        return ServerError(f"{answer.url.scheme}://{answer.url.netloc.decode()} does not know {shown}; give another")
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
