"""Remove from an OTLP/JSON request what diagnosis does not need, and keep a list of what was removed. Pure.

Secrets and everything marked personal go; addresses are cut to their network: what remains says which provider and
region, not which person. The address of the digital-person server itself (`server.address`) stays: without it nothing
can be checked. No pattern takes more than linear time, because the text may be hostile.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_PERSONAL: Final = "pii"
_LONGEST_NAME: Final = 256
_SECRET: Final = re.compile(
    r"(?:.*[_-])?(?:\w*token|password|passwd|secret|authorization|cookie|credentials?|api_?key|private_?key|sdp)"
)
"""Segments of attribute names whose values never leave."""
_KEPT: Final = frozenset({"server.address"})

_SECRETS_IN_TEXT: Final = (
    re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?"),
    re.compile(r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(
        r"(?i)(?:(?:access|refresh|id)_?token|token|password|passwd|secret|api_?key|sig(?:nature)?)=[^&\s\"'<>;,]+"
    ),
    re.compile(r"(?<=://)[^/\s@:\"'<>]{1,64}:[^/\s@\"'<>]{1,64}(?=@)"),
)
_EMAIL: Final = re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_IPV4: Final = re.compile(r"(?<![\d.])(\d{1,3}\.\d{1,3}\.\d{1,3})\.\d{1,3}(?![\d.]*\d)")
_IPV6: Final = re.compile(r"(?<![0-9A-Za-z:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:%\w+)?(?![0-9A-Za-z:])")


@dataclass(frozen=True, slots=True)
class Removed:
    """One line of the manifest."""

    what: str
    """personal, secret, email, ipv4 or ipv6."""
    where: str
    """The attribute's name, or the field."""
    count: int


class Scrubber:
    """Cleans values and counts what it removed."""

    def __init__(self) -> None:
        self._removed: Counter[tuple[str, str]] = Counter()

    @property
    def manifest(self) -> tuple[Removed, ...]:
        """What was removed so far."""
        return tuple(Removed(what, where, count) for (what, where), count in sorted(self._removed.items()))

    def request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A clean copy of an OTLP/JSON trace request."""
        cleaned: dict[str, Any] = self._any(request, "")
        return cleaned

    def value(self, value: Any, where: str) -> Any:
        """A clean copy of plain JSON: of a story, say."""
        match value:
            case str():
                return self.text(value, where)
            case list():
                return [self.value(item, where) for item in value]
            case Mapping():
                return {key: self.value(item, key) for key, item in value.items() if self._named(key, where) is None}
        return value

    def text(self, text: str, where: str) -> str:
        """The text without secrets, mail addresses and the last part of network addresses."""
        if where in _KEPT or where == "server_address":
            return text
        for pattern in _SECRETS_IN_TEXT:
            text = self._replace(pattern, text, "secret", where, lambda _: "[secret removed]")
        text = self._replace(_EMAIL, text, "email", where, lambda _: "[address removed]")
        text = self._replace(_IPV4, text, "ipv4", where, _network4)
        return self._replace(_IPV6, text, "ipv6", where, _network6)

    def _any(self, value: Any, where: str) -> Any:
        match value:
            case str():
                return self.text(value, where)
            case list():
                return [kept for item in value if (kept := self._any(item, where)) is not None]
            case {"key": str() as key, "value": item}:
                if self._named(key, key) is not None:
                    return None
                return {"key": self.text(key, "attribute name"), "value": self._any(item, key)}
            case Mapping():
                inside = where if {"stringValue", "arrayValue", "kvlistValue", "values"} & set(value) else ""
                return {key: self._any(item, inside or key) for key, item in value.items()}
        return value

    def _named(self, key: str, where: str) -> str | None:
        """Why a value of that name must go; None means that it may stay."""
        segments = key[:_LONGEST_NAME].lower().split(".")
        secret = any(_SECRET.fullmatch(segment) for segment in segments)
        why = "personal" if _PERSONAL in segments else "secret" if secret else None
        if why:
            self._removed[why, key] += 1
        return why

    def _replace(self, pattern: re.Pattern[str], text: str, what: str, where: str, by: Any) -> str:
        def replace(match: re.Match[str]) -> str:
            replacement: str = by(match)
            if replacement != match[0]:
                self._removed[what, where] += 1
            return replacement

        return pattern.sub(replace, text)


def _network4(match: re.Match[str]) -> str:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]  # a version number, say
    return match[0] if address.is_loopback or address.is_unspecified else f"{match[1]}.x"


def _network6(match: re.Match[str]) -> str:
    try:
        address = ipaddress.IPv6Address(match[0].partition("%")[0])
    except ValueError:
        return match[0]  # a time of day, say
    if address.is_loopback or address.is_unspecified:
        return match[0]
    number = int(address)
    return ":".join(f"{number >> shift & 0xFFFF:x}" for shift in (112, 96, 80)) + "::x"
