"""Keep the answers that pages ask again and again, for as long as the store holds what they were made from.

An answer is kept as it travels: bytes, compressed bytes, and an ETag, so that a browser that has it hears only that.
"""

import asyncio
import gzip
import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

MOST_BYTES: Final = 32 * 1024 * 1024
"""Of all answers kept together; a page of 22 panels has less than half a megabyte."""
LARGEST_BYTES: Final = 4 * 1024 * 1024
"""A larger answer is a download, which nobody asks for every other second."""
MOVING_S: Final = 2.0
"""How long an answer about a range that moves with the clock is taken for true: as often as pages look for news."""
_GZIP_LEVEL: Final = 5
_SHORTEST_GZIP: Final = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered, ready to be sent."""

    body: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    etag: str = field(init=False)
    zipped: bytes | None = field(init=False)

    def __post_init__(self) -> None:
        """Compress and name the body once, however often it is sent."""
        worth = len(self.body) >= _SHORTEST_GZIP
        object.__setattr__(self, "etag", f'"{hashlib.sha256(self.body).hexdigest()[:32]}"')
        object.__setattr__(self, "zipped", gzip.compress(self.body, _GZIP_LEVEL) if worth else None)

    def response(self, request: Request) -> Response:
        """Send it, or say that the browser already has it."""
        headers = {"ETag": self.etag, "Cache-Control": "private, no-cache", "Vary": "Accept-Encoding", **self.headers}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if self.zipped is not None and "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(self.zipped, media_type=self.media_type, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)

    @property
    def size(self) -> int:
        """Bytes that keeping it costs."""
        return len(self.body) + len(self.zipped or b"")


class Answers:
    """The answers about one state of the store; those asked at the same time by several are made once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._version: Hashable = None
        self._kept: OrderedDict[Hashable, tuple[float, Answer]] = OrderedDict()
        self._making: dict[Hashable, asyncio.Task[Answer]] = {}
        self._waiting = Counter[asyncio.Task[Answer]]()
        self._bytes = 0

    async def of(
        self, question: Hashable, version: Hashable, make: Callable[[], Awaitable[Answer]], *, moving: bool
    ) -> Answer:
        """The answer to a question, kept or made.

        Args:
            question: what tells it from other questions.
            version: of the store's data; another one than before makes everything forgotten.
            make: finds the answer; what it raises is raised here, and is not kept.
            moving: the answer also changes with the clock.
        """
        if version != self._version:
            self._kept.clear()
            self._bytes, self._version = 0, version
        until, answer = self._kept.get(question, (0.0, None))
        if answer is not None and self._clock() < until:
            self._kept.move_to_end(question)
            return answer
        key = (version, question)
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.ensure_future(make())
            task.add_done_callback(partial(self._made, key))
        self._waiting[task] += 1
        try:
            # One of several who wait may leave; the others still want the answer.
            answer = await asyncio.shield(task)
        finally:
            self._waiting[task] -= 1
            if not self._waiting[task]:
                del self._waiting[task]
                task.cancel()
                self._made(key, task)
        if version == self._version:
            self._keep(question, answer, self._clock() + MOVING_S if moving else float("inf"))
        return answer

    def _made(self, key: Hashable, task: asyncio.Task[Answer]) -> None:
        if self._making.get(key) is task:
            del self._making[key]

    def _keep(self, question: Hashable, answer: Answer, until: float) -> None:
        if answer.size > LARGEST_BYTES:
            return
        _, before = self._kept.pop(question, (0.0, None))
        self._bytes += answer.size - (before.size if before else 0)
        self._kept[question] = until, answer
        while self._bytes > MOST_BYTES:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._bytes -= oldest.size
