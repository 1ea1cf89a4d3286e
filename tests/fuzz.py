"""Throw mutated requests at the decoders for as long as asked: `python -m tests.fuzz [requests] [seed]`, `make fuzz`.

Every request must be decoded or refused with one of our errors, the readable and the compiled decoders must agree, none
may take long, and memory must not grow. Some of those that are taken are stored and folded, too, and at the end the
store must equal its definitions. The first that breaks a rule is printed, so that it can become a test, and the exit
code is 1. Of one that does not end, the stack is printed after a minute; its seed makes it again.
A million take some fifteen minutes of one core.
"""

import base64
import faulthandler
import gzip
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from telemetry.errors import DecodeError, PayloadTooLarge
from telemetry.receiver import compiled, otlp_json, otlp_protobuf, parts, scanner
from telemetry.receiver.body import Inflate
from telemetry.receiver.otlp import Decoded
from telemetry.receiver.room import Limits
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from tests.support.otlp import RECEIVED_NS, Request, attribute, request, span, to_json
from tests.support.traffic import foreign, own

Decoder = Callable[[bytes, int], Decoded]

LIMITS = Limits(max_body_bytes=1_000_000)
SLOW_S = 2.0
"""No request of this size may take longer; a usual one takes a millisecond."""
HANG_S = 60
"""Nor may a few together, folds among them: whatever does not end, and holds the interpreter or not, is ended then."""
STORED = 20
"""One in so many that have spans is stored: a commit takes some ten times as long as a request."""
GROWTH_MB = 300
"""Of the peak, after the first tenth: what is remembered of attributes, what the store buffers, and slack."""
INTERESTING = (b"\x00", b"\xff" * 9 + b"\x01", b"\x80" * 20, b"\x0a", b"\x7f", b"\xed\xa0\x80", b"\xff\xfe", b"\\ud800")


def seeds() -> list[bytes]:
    """Requests to begin with: usual ones, all fields, nesting, huge ids, a bomb, and traps of JSON."""
    nested: list[object] = []
    for _ in range(30):
        nested = [nested]
    rich = span(
        attributes=[attribute("deep", nested), attribute("map", {"a": {"b": b"\x00"}}), attribute("n", float("nan"))],
        events=[{"name": "e", "time_unix_nano": 1, "attributes": [attribute("k", [1, "x", None])]}],
        links=[{"trace_id": b"1" * 16, "span_id": b"2" * 8, "flags": 1}],
        status={"code": 2, "message": "m"},
        trace_state="a=b",
    )
    messages = [own(3), foreign(3), request(rich, span(trace_id=b""), **{"service.name": "s"})]
    return [
        *(message.SerializeToString() for message in messages),
        *(to_json(message) for message in messages),
        messages[2].SerializeToString() + nested_deep(10_000),
        request(span(trace_id=b"9" * 5_000, name="n" * 5_000)).SerializeToString(),
        b'{"resourceSpans":[{}],"resourceSpans":[{"scopeSpans":[],"scopeSpans":[{"spans":[{"name":"a","name":"b"}]}]}]}',
        gzip.compress(bytes(4_000_000)),
        b'{"a":' * 10_000,
        b"[" * 10_000 + b"]" * 10_000,
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":' + b"9" * 5000 + b"}]}]}]}",
    ]


def nested_deep(levels: int) -> bytes:
    """A request whose one attribute is lists within lists."""
    value = b""
    for number in [1, *([1, 5] * levels), 2, 9, 2, 2, 1]:
        size, left = bytearray(), len(value)
        while left > 127:
            size.append(left & 127 | 128)
            left >>= 7
        value = bytes([number << 3 | 2, *size, left]) + value
    return value


def mutate(body: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """Change, remove, repeat, insert, cut or splice, a few times."""
    made = bytearray(body)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 6))):
        at, length = dice.randint(0, len(made)), dice.randint(0, 40)
        change = dice.choice((0, 0, 0, 0, 1, 2, 3, 4, 5))
        if change == 0 and at < len(made):
            made[at] = dice.randrange(256)
        elif change == 1:
            del made[at : at + length]
        elif change == 2:
            made[at:at] = made[at : at + length] * dice.randint(1, 5)
        elif change == 3:
            made[at:at] = dice.choice(INTERESTING)
        elif change == 4:
            del made[at:]
        else:
            other = dice.choice(others)
            start = dice.randint(0, len(other))
            made[at : at + length] = other[start : start + length]
    return bytes(made)


def attempt(body: bytes) -> list[Decoded]:
    """Decode a body in every way; returns what it was taken as."""
    protobuf = agreed(otlp_protobuf.decode_protobuf, scanner.decode_protobuf, body)
    text = agreed(otlp_json.decode_json, scanner.decode_json, body)
    unfolded = outcome(inflated, body)
    if len(body) % 8 == 0:  # one in eight is also packed, whole and cut
        outcome(inflated, gzip.compress(body, 1))
        if isinstance(outcome(cut_short, body), Decoded):
            raise AssertionError("gzip without its end was taken")
    counted(body)
    return [end for end in (protobuf, text, unfolded) if isinstance(end, Decoded)]


def agreed(readable: Decoder, compiled: Decoder, body: bytes) -> Decoded | str:
    """What both make of a body."""
    one, other = outcome(readable, body), outcome(compiled, body)
    if isinstance(one, Decoded) and isinstance(other, Decoded):
        same = one.rejected == other.rejected and one.table.equals(other.table)
    else:
        same = one == other
    if not same:
        raise AssertionError(f"{readable.__module__} and {compiled.__module__} disagree")
    return one


def outcome(decode: Decoder, body: bytes) -> Decoded | str:
    """Rows and rejections, or the error."""
    try:
        return decode(body, RECEIVED_NS)
    except (DecodeError, PayloadTooLarge) as error:
        return f"{type(error).__name__}: {error.message}"


def inflated(body: bytes, received_ns: int) -> Decoded:
    """Decode what a gzip body unfolds into."""
    inflate = Inflate(LIMITS)
    unfolded = b"".join(inflate.feed(body))
    inflate.finish()
    return scanner.decode_json(unfolded, received_ns)


def cut_short(body: bytes, received_ns: int) -> Decoded:
    """As `inflated`, of gzip whose end is missing."""
    return inflated(gzip.compress(body, 1)[:-1], received_ns)


def counted(body: bytes) -> None:
    """Count the parts of a body both ways, as the receiver does with large ones before it decodes them."""
    inner = parts._inner(Request.DESCRIPTOR)
    if parts.count_protobuf(body, Request.DESCRIPTOR) != parts.count_slowly(body, inner):
        raise AssertionError("the parts are counted differently")
    shapes = np.zeros((2, 5), np.int64)
    compiled.look_at_json(body, shapes[0])
    parts.look_slowly(body, shapes[1])
    if shapes[0].tolist() != shapes[1].tolist():
        raise AssertionError("JSON is counted differently")


class Kept:
    """Stores one in `STORED` of the requests that are taken and have spans."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen = 0
        self._spans = 0
        self.commits = 0

    def keep(self, taken: list[Decoded]) -> None:
        """Store them when it is their turn; every hundredth time they are folded, too."""
        tables = [decoded.table for decoded in taken if decoded.table.num_rows]
        self._seen += bool(tables)
        if not tables or self._seen % STORED:
            return
        self._store.commit([self._numbered(table) for table in tables])
        self.commits += 1
        if self.commits % 100 == 0:
            self._store.tend(now=True)

    def _numbered(self, table: pa.Table) -> pa.Table:
        """With ids of their own: most of them would be taken for the same span again."""
        ids = [f"{self._spans + row:016x}" for row in range(1, table.num_rows + 1)]
        self._spans += table.num_rows
        return table.set_column(table.schema.get_field_index("span_id"), "span_id", pa.array(ids, pa.string()))

    def check(self) -> int:
        """Fold the rest, and compare; returns how many spans there are."""
        self._store.tend(now=True)
        if wrong := [check.name for check in verify(self._store) if not check.passed]:
            raise AssertionError(f"{', '.join(wrong)}: not as defined")
        spans = int(self._store.info()["spans"])
        if spans != self._spans:
            raise AssertionError(f"{self._spans:,} spans were stored, and {spans:,} are there")
        return spans


def main(count: int, seed: int) -> int:
    """Returns the exit code."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "s.duckdb") as store:
        return fuzz(count, seed, Kept(store))


def fuzz(count: int, seed: int, kept: Kept) -> int:
    """Returns the exit code."""
    dice = random.Random(seed)
    corpus = seeds()
    first = len(corpus)
    ends = {"taken": 0, "refused": 0}
    settled_mb = 0
    attempt(b"")  # the first use of pyarrow imports pandas
    began = time.monotonic()
    print(f"seed {seed}", file=sys.stderr, flush=True)
    for number in range(count):
        if number % 100 == 0:
            faulthandler.dump_traceback_later(HANG_S, exit=True)
        body = mutate(dice.choice(corpus), dice, corpus)
        before = time.process_time()
        try:
            taken = attempt(body)
            took_s = time.process_time() - before
            if took_s > SLOW_S:
                raise AssertionError(f"it took {took_s:.1f} s")
            if taken:
                kept.keep(taken)
        except Exception as error:
            print(f"request {number} of seed {seed}: {type(error).__name__}: {error}")
            print(base64.b64encode(body).decode())
            return 1
        ends["taken" if taken else "refused"] += 1
        if taken and dice.random() < 0.01:
            corpus[first:] = [*corpus[first:][-200:], body[:20_000]]  # what is still a request is mutated again
        if number == count // 10:
            settled_mb = _peak_mb()
        if number % 20_000 == 0:
            print(f"{number:,} requests, {_peak_mb()} MB", file=sys.stderr, flush=True)
    faulthandler.cancel_dump_traceback_later()
    grown_mb = _peak_mb() - settled_mb
    spans = kept.check()
    seconds = time.monotonic() - began
    print(
        f"{count:,} mutated requests in {seconds:.0f} s, seed {seed}: "
        f"{ends['taken']:,} taken, {ends['refused']:,} refused, "
        f"{kept.commits:,} stored, whose {spans:,} spans are as defined; "
        f"no crash, no hang, the decoders agree, peak memory {_peak_mb()} MB (+{grown_mb} MB after the first tenth)"
    )
    return 1 if grown_mb > GROWTH_MB else 0


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*arguments, *(1_000_000, time.time_ns() % 1_000_000)[len(arguments) :]))
