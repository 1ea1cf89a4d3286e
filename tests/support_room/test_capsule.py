"""Capsules: one file out, the same verdict in another store."""

import json
from html.parser import HTMLParser

import pytest

from telemetry.errors import DecodeError, PayloadTooLarge
from telemetry.support import capsule
from tests.support.source import MemorySource
from tests.support.spans import T0, attempt, table

_HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> 192.168.7.33 {0}"
_KINDS = {
    "failed": {"outcome": "failed", "error": "noScene"},
    "hostile": {
        "outcome": "failed",
        "error": "serverConnectionFailed",
        "detail": "tls",
        "message": _HOSTILE,
        "attributes": {"user.pii.name": "Bob", "n": 2**53 + 1, "f": 1.0, "list": [1, 2.5, True, _HOSTILE]},
    },
    "lost": {"disconnect": "connectionLost", "disconnect_detail": "socket_lost", "media_last_seen_ago_ms": 9_000},
    "unfinished": {"outcome": "unfinished", "stops_in": "assets"},
}


_PLAIN_TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "strong", "pre"} | {
    *("table", "tbody", "tr", "td", "code", "script")
}
_PLAIN_ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "type", "id", "colspan"}


class _Tags(HTMLParser):
    """Collects every tag with its attributes, as a browser would see them."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def _source(kind):
    return MemorySource(table(attempt(1, **_KINDS[kind])))


@pytest.mark.parametrize("kind", _KINDS)
def test_round_trip(kind):
    """Out of one store and into another, the verdict is identical, with its evidence."""
    packed = capsule.pack("attempt-0001", _source(kind))
    read = capsule.unpack(packed.to_html().encode())
    elsewhere = MemorySource(read.table(received_ns=1))

    assert read == packed
    assert capsule.verdict_in(elsewhere, read.trace_id) == packed.verdict


def test_json_alone():
    """The JSON inside the page is a capsule by itself."""
    packed = capsule.pack("attempt-0001", _source("failed"))

    assert capsule.unpack(packed.to_json().encode()) == packed


def test_other_attempts_travel_along():
    """Attempts of the same session are in the capsule."""
    source = MemorySource(table(attempt(1, session="s-1"), attempt(2, session="s-1", start_ns=T0 + 100_000_000_000)))

    read = capsule.pack("attempt-0002", source)

    rows = MemorySource(read.table(1)).query("select attempt_id from connections order by attempt_id").to_pylist()
    assert rows == [{"attempt_id": "attempt-0001"}, {"attempt_id": "attempt-0002"}]


def test_page_is_inert():
    """The page holds no active content and no reference to anything outside, whatever was recorded."""
    page = capsule.pack("attempt-0001", _source("hostile")).to_html()

    tags = _Tags()
    tags.feed(page)

    assert [attributes for tag, attributes in tags.seen if tag == "script"] == [
        {"type": "application/json", "id": "capsule"}
    ]
    assert {tag for tag, _ in tags.seen} == _PLAIN_TAGS
    assert {name for _, attributes in tags.seen for name in attributes} <= _PLAIN_ATTRIBUTES
    assert "default-src 'none'" in page
    assert "url(" not in page.split("</style>")[0]


def test_removed_is_listed():
    """What was removed is nowhere in the file, and the manifest says that it was."""
    packed = capsule.pack("attempt-0001", _source("hostile"))

    assert "Bob" not in packed.to_html()
    assert "192.168.7.33" not in packed.to_html()
    assert {("personal", "user.pii.name"), ("ipv4", "message")} <= {(one.what, one.where) for one in packed.removed}


def test_changed_capsule():
    """A capsule that was changed after it was made is refused."""
    data = json.loads(capsule.pack("attempt-0001", _source("failed")).to_json())
    data["verdict"]["owner"] = "user"

    with pytest.raises(DecodeError, match="hash"):
        capsule.unpack(json.dumps(data).encode())


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b"null", b'{"capsule": 1}', b"[" * 100_000, b"<html>"])
def test_no_capsule(body):
    """Whatever is no capsule is refused as such."""
    with pytest.raises(DecodeError):
        capsule.unpack(body)


def test_too_large(monkeypatch):
    """A file that is larger than any capsule is not read."""
    monkeypatch.setattr(capsule, "MOST_BYTES", 10)

    with pytest.raises(PayloadTooLarge):
        capsule.unpack(b"x" * 11)
