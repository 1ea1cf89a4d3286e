"""Every error the project raises on purpose, and the exit code each one means.

    TelemetryError                    carries exit_code, and its facts as attributes
    ├── UsageError                    bad flag, bad setting
    ├── ConnectionFailed              connect() failed, for one of the six reasons of the specification
    ├── ProtocolError                 something broke the signalling protocol
    │   ├── LocalProtocolError        we asked for what the state does not allow
    │   └── RemoteProtocolError       the server sent what the state does not allow
    ├── IngestError
    │   ├── DecodeError               permanent: HTTP 400, gRPC INVALID_ARGUMENT
    │   ├── PayloadTooLarge           permanent: HTTP 413, gRPC RESOURCE_EXHAUSTED
    │   └── Overloaded                retryable: HTTP 503 + Retry-After, gRPC UNAVAILABLE + RetryInfo
    ├── StoreError
    │   ├── StoreLocked               another process owns the file
    │   └── SchemaMismatch            the file was written by another version
    ├── ServerError                   a running server could not be asked, or refused
    └── ReportError
        ├── UnknownReport
        ├── BadParameter
        └── SessionNotFound

This file imports nothing of the project.
A message says what happened, to which thing, and what to do next.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What each exit code of the command line means."""

    OK = 0
    FAILED = 1
    """Something failed that has no code of its own."""
    USAGE = 2
    CONNECTION_FAILED = 3
    """connect() failed; or a probe had failures; or an alert rule fired."""
    NOT_FOUND = 4
    """No such session, attempt or report."""
    STORE = 5
    """The store is locked, of another version, damaged, or its disk is full."""
    UNAVAILABLE = 6
    """A server could not be reached, or a port is taken."""
    INTERRUPTED = 130


class TelemetryError(Exception):
    """The root of the tree."""

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UsageError(TelemetryError):
    """A flag, setting or argument that cannot be used; the message names the place it came from."""

    exit_code = ExitCode.USAGE


class ConnectionFailed(TelemetryError):
    """`connect()` failed."""

    exit_code = ExitCode.CONNECTION_FAILED

    def __init__(
        self,
        name: str,
        message: str,
        *,
        step: str,
        part: str | None,
        detail: str,
        attempt_id: str,
        episode_id: str,
        session_id: str | None,
        retryable: bool,
    ) -> None:
        super().__init__(message)
        self.name = name
        """One of the six reasons: `semconv.ConnectionError`."""
        self.step = step
        """The step that was open: `semconv.State`."""
        self.part = part
        """The part of the step that was open: `semconv.Part`; None means between parts."""
        self.detail = detail
        """A low-cardinality code: `semconv.Detail`, `http_<status>` or `close_<code>`."""
        self.attempt_id = attempt_id
        """The id to give to support: it exists even when no session came to be."""
        self.episode_id = episode_id
        self.session_id = session_id
        """None means that the server had not accepted yet."""
        self.retryable = retryable
        """Whether trying again may help without anyone changing anything."""

    def __str__(self) -> str:
        where = f"{self.step}/{self.part}" if self.part else self.step
        return f"{self.name} in {where} ({self.detail}): {self.message} [attempt {self.attempt_id}]"


class ProtocolError(TelemetryError):
    """Something broke the signalling protocol."""


class LocalProtocolError(ProtocolError):
    """The caller asked for what the state does not allow: connect() twice, say."""


class RemoteProtocolError(ProtocolError):
    """The server sent what the protocol or the state does not allow."""


class IngestError(TelemetryError):
    """A telemetry request was not taken."""


class DecodeError(IngestError):
    """The request cannot be read; sending it again will not help."""


class PayloadTooLarge(IngestError):
    """The request is larger than the limit; sending it again will not help."""

    def __init__(self, message: str, *, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class Overloaded(IngestError):
    """The request was not taken now; sending it again later will help."""

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreError(TelemetryError):
    """The store could not do what was asked."""

    exit_code = ExitCode.STORE


class StoreLocked(StoreError):
    """Another process owns the file."""

    def __init__(self, message: str, *, path: str, pid: int | None) -> None:
        super().__init__(message)
        self.path = path
        self.pid = pid
        """The process that holds it; None means unknown."""


class SchemaMismatch(StoreError):
    """The file was written by another version of the schema."""

    def __init__(self, message: str, *, path: str, found: int, expected: int) -> None:
        super().__init__(message)
        self.path = path
        self.found = found
        self.expected = expected


class ServerError(TelemetryError):
    """A running `telemetry serve` could not be asked, or refused; or an address could not be bound."""

    exit_code = ExitCode.UNAVAILABLE


class ReportError(TelemetryError):
    """A report could not be run."""


class UnknownReport(ReportError):
    """No report of that name; carries the nearest names."""

    exit_code = ExitCode.NOT_FOUND

    def __init__(self, message: str, *, name: str, nearest: tuple[str, ...]) -> None:
        super().__init__(message)
        self.name = name
        self.nearest = nearest


class BadParameter(ReportError):
    """A report's parameter is unknown, missing or of the wrong form."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, name: str, expected: str) -> None:
        super().__init__(message)
        self.name = name
        self.expected = expected


class SessionNotFound(ReportError):
    """No session, attempt, episode or trace of that id."""

    exit_code = ExitCode.NOT_FOUND

    def __init__(
        self,
        message: str,
        *,
        id: str,
        nearest: tuple[str, ...],
        since_ns: int | None,
        until_ns: int | None,
        about_ns: int | None = None,
    ) -> None:
        super().__init__(message)
        self.id = id
        self.nearest = nearest
        self.since_ns = since_ns
        """Start of the time range that the store covers; None means that the store is empty."""
        self.until_ns = until_ns
        self.about_ns = about_ns
        """When it is said to have happened; None means that nobody said."""
