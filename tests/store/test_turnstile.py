"""The store has its moment without queries, and they are not held back for longer than it is worth."""

import threading

import pytest

from telemetry.store import turnstile as module
from telemetry.store.turnstile import Turnstile


def test_empty() -> None:
    """Nobody inside: the block has its moment, and who comes meanwhile waits until it is over."""
    turnstile = Turnstile()
    order: list[str] = []

    def read() -> None:
        with turnstile.passed():
            order.append("read")

    asking = threading.Thread(target=read)
    with turnstile.emptied(hurry=lambda: True) as empty:
        asking.start()
        order.append("alone")
    asking.join()

    assert empty
    assert order == ["alone", "read"]


def test_somebody_stays() -> None:
    """Somebody who does not leave in time prevents it, and nobody is held back any longer."""
    turnstile = Turnstile()
    with turnstile.passed(), turnstile.emptied(hurry=lambda: True) as empty, turnstile.passed():
        assert not empty


def test_hurried() -> None:
    """Patience ends when there is no time for it."""
    turnstile = Turnstile()
    hurries = iter([False, False, True])  # and would go on to fail
    with turnstile.passed(), turnstile.emptied(hurry=lambda: next(hurries)) as empty:
        assert not empty


def test_more_patient_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in vain is tried again after a rest, with twice the patience up to a limit, until it succeeds."""
    now_s = 0.0

    def wait_until_patience_ends() -> bool:
        nonlocal now_s
        now_s += 0.5
        return False

    monkeypatch.setattr(module, "_LOOK_S", 0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s)
    turnstile = Turnstile()
    patience, rests = [], []
    with turnstile.passed():
        for _ in range(7):
            began_s = now_s
            with turnstile.emptied(hurry=wait_until_patience_ends) as empty:
                assert not empty
            patience.append(now_s - began_s)
            rests.append(turnstile.rest_s)
    tries = turnstile.obstructed
    with turnstile.emptied(hurry=wait_until_patience_ends) as empty:
        assert empty

    assert patience == [1, 2, 4, 8, 16, 32, 32]
    assert rests == [8, 16, 32, 60, 60, 60, 60]
    assert (tries, turnstile.obstructed, turnstile.rest_s) == (7, 0, 0)


def test_urged() -> None:
    """Who is asked to leave, and does, is waited for."""
    turnstile = Turnstile()
    inside, leave = threading.Event(), threading.Event()

    def read() -> None:
        with turnstile.passed():
            inside.set()
            leave.wait()

    asking = threading.Thread(target=read)
    asking.start()
    inside.wait()
    with turnstile.emptied(hurry=lambda: True, urge=leave.set) as empty:
        assert empty
    asking.join()


def test_failures_hold_nobody_back() -> None:
    """Whatever fails in the block, or while it is waited for: queries go on, and it is not tried again at once."""

    def fail() -> bool:
        raise KeyError

    turnstile = Turnstile()
    with pytest.raises(KeyError), turnstile.passed(), turnstile.emptied(hurry=fail):
        pass
    with pytest.raises(KeyError), turnstile.emptied(hurry=fail):
        fail()
    assert turnstile.rest_s > 0
    with turnstile.passed():
        pass


def test_hurried_is_not_obstructed() -> None:
    """Who had no time to wait says nothing about those that were in the way."""
    turnstile = Turnstile()
    with turnstile.passed(), turnstile.emptied(hurry=lambda: True):
        pass

    assert turnstile.obstructed == 0
