"""One file with everything about an attempt: it opens offline as a page, and imports into any store.

It says what was removed. The page has no scripts and no references.
The spans are in it as OTLP/JSON, so any OTLP reader can have them.
A capsule that is read is hostile input: its hash must fit, and its spans pass the same decoder as any request.
"""

import hashlib
import html
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from telemetry import __version__, traces
from telemetry.errors import DecodeError, PayloadTooLarge
from telemetry.receiver.otlp_json import decode_json
from telemetry.support import text
from telemetry.support.asking import Source, ask
from telemetry.support.scrub import Removed, Scrubber
from telemetry.support.story import tell
from telemetry.support.verdict import judge, plain

FORMAT: Final = 1
MOST_BYTES: Final = 64 * 1024 * 1024
"""The size that OTLP recommends as the limit of a request."""
MOST_ATTEMPTS: Final = 20
"""Attempts of the same episode and session that travel along."""

_DATA: Final = re.compile(r'<script type="application/json" id="capsule">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Capsule:
    """What a capsule holds."""

    asked: str
    attempt_id: str
    trace_id: str
    verdict: Mapping[str, Any]
    story: Mapping[str, Any]
    """As it was told when the capsule was made: cohort and twin cannot be computed anew elsewhere."""
    removed: tuple[Removed, ...]
    otlp: Mapping[str, Any]
    """The spans of the attempt, and of others of its episode and session, as an OTLP/JSON trace request."""
    sha256: str

    def to_json(self) -> str:
        """The capsule as one JSON object."""
        return json.dumps({**self._content(), "sha256": self.sha256}, ensure_ascii=False)

    def to_html(self) -> str:
        """The capsule as a page that opens without a network, with the JSON inside."""
        data = self.to_json().replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
        removed = "".join(
            f"<tr><td>{item.count}</td><td>{html.escape(item.what)}</td><td>{html.escape(item.where)}</td></tr>"
            for item in self.removed
        )
        return _PAGE.format(
            title=html.escape(self.attempt_id),
            sentence=html.escape(str(self.verdict["sentence"])),
            owner=html.escape(str(self.verdict["owner"])),
            next=html.escape(str(self.verdict["next"])),
            story=html.escape(text.render(self.story)),
            removed=removed or "<tr><td colspan=3>Nothing had to be removed.</td></tr>",
            sha256=html.escape(self.sha256),
            data=data,
        )

    def table(self, received_ns: int) -> pa.Table:
        """The spans as a store takes them.

        Raises:
            DecodeError: they are no OTLP.
            PayloadTooLarge: they are more than a request may hold.
        """
        decoded = decode_json(json.dumps(self.otlp).encode(), received_ns)
        if decoded.rejected:
            raise DecodeError(f"the capsule has spans that cannot be stored: {decoded.rejected[0].reason}")
        return decoded.table

    def _content(self) -> dict[str, Any]:
        content = {name: value for name, value in asdict(self).items() if name != "sha256"}
        return {"capsule": FORMAT, "made_by": __version__, **{name: plain(value) for name, value in content.items()}}


def pack(id: str, source: Source) -> Capsule:
    """Make the capsule of what an id means, scrubbed.

    Raises:
        SessionNotFound: nothing, or several things, are meant.
    """
    told = tell(id, source)
    others = [*told.history.episode, *told.history.session]
    trace_ids = list(dict.fromkeys([told.attempt["trace_id"], *(other.trace_id for other in others)]))[:MOST_ATTEMPTS]
    spans = [row for trace_id in trace_ids for row in ask(source, "spans_of", {"trace_id": trace_id})]
    scrubber = Scrubber()
    otlp = scrubber.request(traces.to_otlp(spans))
    teller = Scrubber()
    story = teller.value(told.to_dict(), "story")
    made = Capsule(
        asked=scrubber.text(told.asked, "asked"),
        attempt_id=told.attempt["attempt_id"],
        trace_id=told.attempt["trace_id"],
        verdict=story["verdict"],
        story=story,
        removed=(*scrubber.manifest, *(Removed(one.what, f"story: {one.where}", one.count) for one in teller.manifest)),
        otlp=otlp,
        sha256="",
    )
    return Capsule(**{name: getattr(made, name) for name in Capsule.__slots__ if name != "sha256"}, sha256=_hash(made))


def unpack(body: bytes) -> Capsule:
    """Read a capsule, the page or the JSON alone.

    Raises:
        PayloadTooLarge: it is larger than any capsule.
        DecodeError: it is no capsule, of another format, or not as it was made.
    """
    if len(body) > MOST_BYTES:
        raise PayloadTooLarge(
            f"a capsule has at most {MOST_BYTES} bytes, this file {len(body)}",
            size_bytes=len(body),
            limit_bytes=MOST_BYTES,
        )
    try:
        content = body.decode("utf-8")
        found = _DATA.search(content)
        data = json.loads(found[1] if found else content)
    except (ValueError, RecursionError) as error:
        raise DecodeError("the file is no capsule: neither its page nor JSON") from error
    if not isinstance(data, dict) or data.get("capsule") != FORMAT:
        raise DecodeError(f"the file is no capsule of format {FORMAT}")
    try:
        capsule = Capsule(
            asked=_word(data["asked"]),
            attempt_id=_word(data["attempt_id"]),
            trace_id=_word(data["trace_id"]),
            verdict=_object(data["verdict"]),
            story=_object(data["story"]),
            removed=tuple(
                Removed(_word(item["what"]), _word(item["where"]), int(item["count"])) for item in data["removed"]
            ),
            otlp=_object(data["otlp"]),
            sha256=_word(data["sha256"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DecodeError("the capsule lacks a part, or has one of the wrong form") from error
    if _hash_of(data) != capsule.sha256:
        raise DecodeError("the capsule was changed after it was made: its hash does not fit")
    return capsule


def verdict_in(source: Source, trace_id: str) -> dict[str, Any]:
    """The verdict that a store gives of an attempt, to compare with a capsule's."""
    facts = ask(source, "attempt", {"trace_id": trace_id})[0]
    return judge(facts, ask(source, "spans_of", {"trace_id": trace_id})).to_dict()


def _hash(capsule: Capsule) -> str:
    return _hash_of(json.loads(capsule.to_json()))


def _hash_of(data: Mapping[str, Any]) -> str:
    content = {name: value for name, value in data.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'">
<meta name="viewport" content="width=device-width">
<meta name="referrer" content="no-referrer">
<title>Capsule of {title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 75rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }}
pre {{ overflow-x: auto; overflow-wrap: normal; font: 14px/1.4 ui-monospace, monospace; }}
td {{ padding-right: 1.5rem; vertical-align: top; }}
</style>
</head>
<body>
<h1>{sentence}</h1>
<p>Owner: <strong>{owner}</strong>. Next: {next}</p>
<pre>{story}</pre>
<h2>What was removed</h2>
<table><tbody>{removed}</tbody></table>
<p>Content hash (SHA-256): <code>{sha256}</code></p>
<script type="application/json" id="capsule">{data}</script>
</body>
</html>
"""
