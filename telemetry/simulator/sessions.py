"""Who has which session: the places of the digital persons, the queue for them, and the sessions kept for a reconnect.

No I/O, no clock. Used by one event loop.
"""

import asyncio
import uuid
from collections import OrderedDict
from typing import Final, Protocol

KEPT_SESSIONS: Final = 10_000
"""How many sessions are remembered for a reconnect; the oldest is forgotten first."""
QUEUE_FULL: Final = 4429
BUSY: Final = 4503
"""Close codes for a client that can neither have a place nor wait for one."""


class Holder(Protocol):
    """A connection that may hold a place or a session."""

    def drop(self) -> None:
        """End at once: the session has moved to another connection."""


class Places:
    """The digital persons that are free, and the queue for them: first come, first served."""

    def __init__(self, capacity: int, queue_limit: int) -> None:
        self._capacity = capacity
        self._queue_limit = queue_limit
        self._taken: set[Holder] = set()
        self._waiting: list[Holder] = []
        self._moved = asyncio.Event()

    def enter(self, holder: Holder) -> int | None:
        """Take a free place or join the queue. Returns the close code for one that may do neither."""
        if len(self._taken) < self._capacity:
            self._taken.add(holder)
        elif len(self._waiting) < self._queue_limit:
            self._waiting.append(holder)
        else:
            return QUEUE_FULL if self._queue_limit else BUSY
        return None

    def position(self, holder: Holder) -> int:
        """0 means that the holder has its place, 1 that it is next."""
        return 0 if holder in self._taken else self._waiting.index(holder) + 1

    async def moved(self) -> None:
        """Wait until the queue moves."""
        await self._moved.wait()

    def leave(self, holder: Holder) -> None:
        """Give the place back, or leave the queue; the others move up. May be called twice."""
        self._taken.discard(holder)
        if holder in self._waiting:
            self._waiting.remove(holder)
        while self._waiting and len(self._taken) < self._capacity:
            self._taken.add(self._waiting.pop(0))
        self._moved.set()
        self._moved = asyncio.Event()


class Sessions:
    """The sessions that live, and those that are kept for their client to come back."""

    def __init__(self) -> None:
        self.live: dict[str, Holder] = {}
        """By sessionId."""
        self._kept: OrderedDict[str, None] = OrderedDict()

    def claim(self, resume: str | None, holder: Holder) -> tuple[str, bool]:
        """Give a session to a connection: the one to resume if it lives or was kept, else another.

        Returns:
            The sessionId, and whether it is the resumed one.
        """
        if resume is None or not (resume in self.live or resume in self._kept):
            session_id, resumed = str(uuid.uuid4()), False
        else:
            session_id, resumed = resume, True
            self._kept.pop(session_id, None)
            if former := self.live.get(session_id):
                former.drop()
        self.live[session_id] = holder
        return session_id, resumed

    def release(self, session_id: str, holder: Holder, *, keep: bool) -> None:
        """Take a session back from a connection, unless another connection has taken it over."""
        if self.live.get(session_id) is not holder:
            return
        del self.live[session_id]
        if keep:
            self._kept[session_id] = None
            if len(self._kept) > KEPT_SESSIONS:
                self._kept.popitem(last=False)
