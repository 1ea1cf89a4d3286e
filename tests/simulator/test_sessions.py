"""Places, the queue and kept sessions."""

import asyncio

from telemetry.simulator import sessions
from telemetry.simulator.sessions import Places, Sessions


class Holder:
    """A connection that only remembers that it was dropped."""

    dropped = False

    def drop(self) -> None:
        self.dropped = True


def test_queue_moves_up() -> None:
    """Who comes first has the place; a free place goes to the first in the queue, and the others move up."""
    first, second, third = Holder(), Holder(), Holder()
    places = Places(capacity=1, queue_limit=2)

    assert [places.enter(holder) for holder in (first, second, third)] == [None, None, None]
    assert [places.position(holder) for holder in (first, second, third)] == [0, 1, 2]

    places.leave(first)
    assert [places.position(holder) for holder in (second, third)] == [0, 1]


async def test_move_wakes_the_waiting() -> None:
    """Who waits for the queue to move is woken when somebody leaves."""
    first = Holder()
    places = Places(capacity=1, queue_limit=1)
    places.enter(first)
    waiting = asyncio.create_task(places.moved())
    await asyncio.sleep(0)
    places.leave(first)

    await waiting


def test_full_queue_refuses() -> None:
    """One more than the queue holds is refused as queue full, or as busy where there is no queue."""
    with_queue, without = Places(1, 1), Places(1, 0)

    assert [with_queue.enter(Holder()) for _ in range(3)] == [None, None, sessions.QUEUE_FULL]
    assert [without.enter(Holder()) for _ in range(2)] == [None, sessions.BUSY]


def test_leaving_the_queue_gives_up_the_position() -> None:
    """Somebody who leaves the queue is not admitted later, and leaving twice does nothing."""
    first, second, third = Holder(), Holder(), Holder()
    places = Places(1, 2)
    for holder in (first, second, third):
        places.enter(holder)
    places.leave(second)
    places.leave(second)
    places.leave(first)

    assert places.position(third) == 0


def test_kept_session_is_resumed_once() -> None:
    """A kept session goes to the client that asks for it; one that was not kept is replaced by another."""
    known = Sessions()
    holder = Holder()
    session_id, resumed = known.claim(None, holder)
    known.release(session_id, holder, keep=True)

    assert not resumed
    assert known.claim(session_id, holder) == (session_id, True)

    known.release(session_id, holder, keep=False)
    other, resumed = known.claim(session_id, holder)
    assert not resumed
    assert other != session_id


def test_live_session_moves_to_the_newcomer() -> None:
    """Resuming a session whose old connection still hangs drops the old one, whose end then changes nothing."""
    known = Sessions()
    old, new = Holder(), Holder()
    session_id, _ = known.claim(None, old)

    assert known.claim(session_id, new) == (session_id, True)
    assert old.dropped

    known.release(session_id, old, keep=False)
    assert known.live == {session_id: new}


def test_memory_is_bounded(monkeypatch) -> None:
    """Only so many sessions are kept; the oldest is forgotten first."""
    monkeypatch.setattr(sessions, "KEPT_SESSIONS", 2)
    known = Sessions()
    holder = Holder()
    ids = [known.claim(None, holder)[0] for _ in range(3)]
    for session_id in ids:
        known.release(session_id, holder, keep=True)

    assert [known.claim(session_id, holder)[1] for session_id in ids] == [False, True, True]
