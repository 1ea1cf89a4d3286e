"""Let the store have a moment without queries, the more patiently the longer they are in its way.

No I/O.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

PATIENCE_S: Final = 1.0
"""How long new queries are held back while those that run may end, at first; then twice as long each time ..."""
MOST_PATIENCE_S: Final = 32.0
"""... until no query of a page, which may take 30 s, can prevent it."""
REST: Final = 8
"""Queries go on for so many times as long before they are held back again ..."""
MOST_REST_S: Final = 60.0
"""... so that the log grows by no more than a minute's spans past its limit."""
_LOOK_S: Final = 0.02
_URGED_TIMES: Final = 100


class Turnstile:
    """Counts the queries that read, and holds new ones back when the store needs none to. Any thread may call it."""

    def __init__(self) -> None:
        self._inside = 0
        self._holding = 0
        """How many hold new ones back."""
        self._changed = threading.Condition()
        self.obstructed = 0
        """How often queries did not leave, for all patience, since they last did."""
        self._rests_until_s = 0.0
        """By the monotonic clock."""

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Read in the block; waits to begin while others are held back."""
        with self._changed:
            self._changed.wait_for(lambda: not self._holding)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @property
    def occupied(self) -> bool:
        """Whether anybody reads."""
        return self._inside > 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody begin to read in the block."""
        with self._changed:
            self._holding += 1
        try:
            yield
        finally:
            with self._changed:
                self._holding -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def emptied(self, *, hurry: Callable[[], bool], urge: Callable[[], None] | None = None) -> Iterator[bool]:
        """Let nobody read in the block, or say that somebody does. One thread at a time.

        Args:
            hurry: whether to wait no longer for those that run to come to their end.
            urge: asks those that still run to end; None leaves them alone.
        """
        patience_s = min(PATIENCE_S * 2**self.obstructed, MOST_PATIENCE_S)
        began_s = time.monotonic()
        self._rests_until_s = began_s + REST * PATIENCE_S  # where it fails
        with contextlib.ExitStack() as holding:
            holding.enter_context(self.held())
            with self._changed:
                self._wait(began_s + patience_s, hurry, urge)
                waited_s = time.monotonic() - began_s
                empty = not self._inside
            if not empty:
                holding.close()
            yield empty
        if empty:
            self.obstructed = 0
        elif waited_s >= patience_s:
            self.obstructed += 1
        self._rests_until_s = time.monotonic() + (0.0 if empty else min(REST * waited_s, MOST_REST_S))

    def _wait(self, until_s: float, hurry: Callable[[], bool], urge: Callable[[], None] | None) -> None:
        while self._inside and time.monotonic() < until_s and not hurry():
            self._changed.wait(_LOOK_S)
        for _ in range(_URGED_TIMES):
            if not self._inside or urge is None:
                break
            urge()
            self._changed.wait_for(lambda: not self._inside, _LOOK_S)

    @property
    def rest_s(self) -> float:
        """For how long queries should not be held back again."""
        return max(0.0, self._rests_until_s - time.monotonic())
