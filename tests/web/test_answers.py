"""Answers that are kept while the store stays the same."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from telemetry.store.duck import Store
from telemetry.web import answers
from telemetry.web.answers import Answer, Answers
from telemetry.web.app import pages_app
from tests.support.spans import T0, attempt, table


def making(made: list[str], text: str = "answer") -> Callable[[], Awaitable[Answer]]:
    """A way to make an answer that leaves a trace of having been used."""

    async def make() -> Answer:
        made.append(text)
        await asyncio.sleep(0)
        return Answer(text.encode(), "text/plain")

    return make


async def test_an_answer_is_made_once_for_one_version() -> None:
    """The same question about the same data is answered from memory; other data or another question are not."""
    kept, made = Answers(), list[str]()
    for question, version in (("a", 1), ("a", 1), ("b", 1), ("a", 2), ("a", 2)):
        await kept.of(question, version, making(made), moving=False)

    assert len(made) == 3


async def test_the_last_who_leaves_ends_the_making() -> None:
    """While one of two still waits it goes on; when nobody does, it is cancelled."""
    kept, begun, ended = Answers(), asyncio.Event(), asyncio.Event()

    async def make() -> Answer:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    first, second = (asyncio.create_task(kept.of("a", 1, make, moving=False)) for _ in range(2))
    await begun.wait()
    first.cancel()
    await asyncio.wait([first])
    assert not ended.is_set()
    second.cancel()
    await ended.wait()


async def test_those_who_ask_together_share_one_making() -> None:
    """Two who ask at the same time get the same answer, made once."""
    kept, made = Answers(), list[str]()

    first, second = await asyncio.gather(*(kept.of("a", 1, making(made), moving=False) for _ in range(2)))

    assert first is second
    assert made == ["answer"]


async def test_an_answer_that_moves_with_the_clock_is_made_again() -> None:
    """A range up to now is asked again once the time has moved on."""
    now, made = [0.0], list[str]()
    kept = Answers(lambda: now[0])
    for moment in (0.0, answers.MOVING_S / 2, answers.MOVING_S):
        now[0] = moment
        await kept.of("a", 1, making(made), moving=True)

    assert len(made) == 2


async def test_a_failure_is_not_kept() -> None:
    """What could not be answered is raised, and asked again the next time."""

    async def refuse() -> Answer:
        raise ValueError("no")

    kept, made = Answers(), list[str]()
    with pytest.raises(ValueError, match="no"):
        await kept.of("a", 1, refuse, moving=False)

    assert (await kept.of("a", 1, making(made), moving=False)).body == b"answer"


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the answer that was not asked for longest is forgotten."""
    monkeypatch.setattr(answers, "MOST_BYTES", 10)
    kept, made = Answers(), list[str]()
    for question in ("a", "b", "a"):
        await kept.of(question, 1, making(made, "1234567"), moving=False)

    assert len(made) == 3


def test_a_long_answer_travels_compressed_to_whoever_understands_it() -> None:
    """The compressed bytes are the body's, and only who accepts gzip gets them."""
    answer = Answer(b"x" * 5000, "text/plain")

    def sent(accepted: str) -> bytes:
        request = Request({"type": "http", "headers": [(b"accept-encoding", accepted.encode())]})
        return bytes(answer.response(request).body)

    assert gzip.decompress(sent("br, gzip")) == sent("identity") == answer.body


async def test_what_a_browser_has_is_not_sent_again(tmp_path: Path) -> None:
    """A report is named by its ETag until a commit changes it."""
    with Store.open(tmp_path / "store.duckdb") as store:
        store.commit([table(attempt(1))])
        transport = httpx.ASGITransport(app=pages_app(store))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            path = f"/api/reports/funnel?since={T0 - 1}&until={T0 + 10**12}"
            first = await client.get(path)
            same = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
            store.commit([table(attempt(2))])
            changed = await client.get(path, headers={"If-None-Match": first.headers["etag"]})

    assert (first.status_code, same.status_code, changed.status_code) == (200, 304, 200)
    assert first.headers["cache-control"] == "private, no-cache"
    assert same.content == b""
    assert changed.json()["rows"][0]["attempts"] == 2
