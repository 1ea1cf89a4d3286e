"""The writer: what is acknowledged is stored, what cannot be taken now is refused at once."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from telemetry.errors import DecodeError, Overloaded, StoreError
from telemetry.store.duck import Committed, Request, Store
from telemetry.store.ledger import Ledger
from telemetry.store.writer import Writer
from tests.support.spans import attempt, table


class Gate(Store):
    """A store whose commits wait until they are let through, and may be made to fail."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.entered = threading.Event()
        self.open_gate = threading.Event()
        self.groups: list[int] = []
        self.failure: Exception | None = None

    def commit_each(
        self, requests: Sequence[Request], noted: Ledger | None = None, *, exact: bool = False
    ) -> list[Committed]:
        self.groups.append(len(requests))
        self.entered.set()
        self.open_gate.wait()
        if self.failure:
            raise self.failure
        return super().commit_each(requests, noted)


@pytest.fixture
def store(tmp_path: Path) -> Gate:
    store = Gate.open(tmp_path / "s.duckdb")
    assert isinstance(store, Gate)
    return store


async def entered(store: Gate) -> None:
    await asyncio.to_thread(store.entered.wait)


async def test_group_commit(store: Gate) -> None:
    """Requests that wait for a commit are committed together, and each learns about its own spans."""
    writer = Writer(store)
    first = asyncio.create_task(writer.submit(table(attempt(1))))
    await entered(store)
    rest = [asyncio.create_task(writer.submit(table(attempt(number)))) for number in (2, 3, 3)]
    await asyncio.sleep(0)
    store.open_gate.set()
    answers = await asyncio.gather(first, *rest)
    await writer.close()

    spans = len(attempt(1))
    assert store.groups == [1, 3]
    assert answers == [Committed(spans, 0), Committed(spans, 0), Committed(spans, 0), Committed(0, spans)]
    assert store.query("select count(*) as n from connections").to_pylist() == [{"n": 3}]
    store.close()


async def test_overloaded(store: Gate) -> None:
    """What exceeds the room for waiting requests is refused at once, and taken again when there is room."""
    given = table(attempt(1))
    writer = Writer(store, max_waiting_bytes=given.nbytes * 2)
    waiting = [asyncio.create_task(writer.submit(given)) for _ in range(2)]
    await entered(store)
    with pytest.raises(Overloaded) as caught:
        await writer.submit(table(attempt(2)))
    store.open_gate.set()
    await asyncio.gather(*waiting)
    after = await writer.submit(table(attempt(2)))
    await writer.close()
    store.close()

    assert caught.value.retry_after_s == 1
    assert after.stored > 0


async def test_too_many_requests(store: Gate) -> None:
    """The number of waiting requests is bounded too."""
    writer = Writer(store, max_waiting_requests=1)
    waiting = asyncio.create_task(writer.submit(table(attempt(1))))
    await entered(store)
    with pytest.raises(Overloaded):
        await writer.submit(table(attempt(2)))
    store.open_gate.set()
    await waiting
    await writer.close()
    store.close()


async def test_close_flushes(store: Gate) -> None:
    """Closing answers all that wait, and refuses what comes after."""
    writer = Writer(store)
    waiting = [asyncio.create_task(writer.submit(table(attempt(number)))) for number in range(1, 6)]
    await entered(store)
    closing = asyncio.create_task(writer.close())
    store.open_gate.set()
    answers = await asyncio.gather(*waiting)
    await closing
    with pytest.raises(Overloaded, match="closing"):
        await writer.submit(table(attempt(9)))

    assert sum(answer.stored for answer in answers) == 5 * len(attempt(1))
    store.close()


async def test_failed_commit(store: Gate) -> None:
    """A commit that fails tells all its requests to come again, and the next one succeeds."""
    store.failure = StoreError("the disk is full; make room, and send again")
    store.open_gate.set()
    writer = Writer(store)
    answers = await asyncio.gather(*(writer.submit(table(attempt(n))) for n in (1, 2)), return_exceptions=True)
    store.failure = None
    after = await writer.submit(table(attempt(1)))
    await writer.close()
    store.close()

    assert [type(answer) for answer in answers] == [Overloaded, Overloaded]
    assert "disk is full" in str(answers[0])
    assert after.stored > 0


async def test_all_that_wait_are_told_of_a_failure(store: Gate) -> None:
    """Who came while a commit failed need not wait as long to hear the same."""
    store.failure = StoreError("s.duckdb is kept busy by its own upkeep; send again later")
    writer = Writer(store)
    first = asyncio.create_task(writer.submit(table(attempt(1))))
    await entered(store)
    rest = [asyncio.create_task(writer.submit(table(attempt(number)))) for number in (2, 3)]
    await asyncio.sleep(0)
    store.open_gate.set()
    answers = await asyncio.gather(first, *rest, return_exceptions=True)
    tried = len(store.groups)
    store.failure = None
    after = await writer.submit(table(attempt(1)))
    await writer.close()
    store.close()

    assert [type(answer) for answer in answers] == [Overloaded] * 3
    assert tried == 1
    assert after.stored > 0


async def test_unstorable_request(store: Gate) -> None:
    """A request that can never be stored is refused for good, and its neighbours are stored."""
    writer = Writer(store)
    first = asyncio.create_task(writer.submit(table(attempt(1))))
    await entered(store)
    bad = table([row | {"attributes": "{no json"} for row in attempt(2)])
    rest = [asyncio.create_task(writer.submit(each)) for each in (table(attempt(3)), bad, table(attempt(4)))]
    await asyncio.sleep(0)
    store.open_gate.set()
    answers = await asyncio.gather(first, *rest, return_exceptions=True)
    await writer.close()
    store.close()

    assert [type(answer) for answer in answers] == [Committed, Committed, DecodeError, Committed]


async def test_cancelled_request(store: Gate) -> None:
    """A sender that goes away while it waits harms nobody."""
    writer = Writer(store)
    gone = asyncio.create_task(writer.submit(table(attempt(1))))
    await entered(store)
    gone.cancel()
    store.open_gate.set()
    after = await writer.submit(table(attempt(2)))
    await writer.close()
    store.close()

    assert gone.cancelled()
    assert after.stored > 0


async def test_refusals_are_written_down(store: Gate) -> None:
    """What a receiver refuses is in `ingest` after the next commit, even when nothing else arrives."""
    store.open_gate.set()
    writer = Writer(store)
    writer.refuse("http/json", "unreadable body", 0, "{")
    await writer.close()
    rows = store.query("select reason, requests, example from ingest").to_pylist()
    store.close()

    assert rows == [{"reason": "unreadable body", "requests": 1, "example": "{"}]


async def test_refusals_outlive_a_failed_commit(store: Gate) -> None:
    """What could not be written down when it was refused is written by the next commit that succeeds, once."""
    store.failure = StoreError("the disk is full; make room, and send again")
    store.open_gate.set()
    writer = Writer(store)
    writer.refuse("grpc", "bad trace id", 2, "00")
    await entered(store)
    with pytest.raises(Overloaded):
        await writer.submit(table(attempt(1)))
    store.failure = None
    await writer.submit(table(attempt(1)))
    await writer.submit(table(attempt(2)))
    await writer.close()
    rows = store.query("select requests, rejected, example from ingest where reason = 'bad trace id'").to_pylist()
    store.close()

    assert rows == [{"requests": 1, "rejected": 2, "example": "00"}]
    assert len(store.groups) <= 4, "a disk that is full is not asked again and again"


async def test_refusals_beside_an_unstorable_request(store: Gate) -> None:
    """What a commit was to write down is not forgotten where one of its requests cannot be stored."""
    writer = Writer(store)
    first = asyncio.create_task(writer.submit(table(attempt(1))))
    await entered(store)
    bad = table([row | {"attributes": "{no json"} for row in attempt(2)])
    rest = [asyncio.create_task(writer.submit(each)) for each in (bad, table(attempt(3)))]
    await asyncio.sleep(0)
    writer.refuse("grpc", "bad trace id", 2)
    store.open_gate.set()
    await asyncio.gather(first, *rest, return_exceptions=True)
    await writer.close()
    rows = store.query("select requests, rejected from ingest where reason = 'bad trace id'").to_pylist()
    store.close()

    assert rows == [{"requests": 1, "rejected": 2}]


async def test_repeated(store: Gate) -> None:
    """A request is known once it is stored, not before, and by no other digest; that it came again is written down."""
    writer = Writer(store)
    first = asyncio.create_task(writer.submit(table(attempt(1)), "grpc", "a" * 32))
    await entered(store)
    too_early = writer.repeated("a" * 32, "grpc")
    store.open_gate.set()
    await first
    again, other = writer.repeated("a" * 32, "http/json"), writer.repeated("b" * 32, "grpc")
    await writer.close()
    rows = store.query("select transport, requests, stored, duplicates from ingest order by transport").to_pylist()
    store.close()

    assert (too_early, again, other) == (False, True, False)
    assert [tuple(row.values()) for row in rows] == [
        ("grpc", 1, len(attempt(1)), 0),
        ("http/json", 1, 0, len(attempt(1))),
    ]


async def test_what_failed_is_not_known(store: Gate) -> None:
    """Of a request that was refused, or shared its commit with one that was, nothing is known but what is stored."""
    store.open_gate.set()
    writer = Writer(store)
    store.failure = StoreError("the disk is full; make room, and send again")
    with pytest.raises(Overloaded):
        await writer.submit(table(attempt(1)), "grpc", "1" * 32)
    store.failure = None
    bad = table([row | {"attributes": "{no json"} for row in attempt(2)])
    each = [writer.submit(bad, "grpc", "2" * 32), writer.submit(table(attempt(3)), "grpc", "3" * 32)]
    await asyncio.gather(*each, return_exceptions=True)
    known = [writer.repeated(digit * 32, "grpc") for digit in "123"]
    await writer.close()
    store.close()

    assert known == [False, False, True]


async def test_nothing(store: Gate) -> None:
    """An empty request is answered without a commit."""
    writer = Writer(store)

    assert await writer.submit(table([])) == Committed(0, 0)
    await writer.close()
    assert store.groups == []
    store.close()
