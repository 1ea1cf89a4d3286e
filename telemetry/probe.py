"""Real sessions by a robot: so many, so many at a time, each marked as synthetic so that no failure rate counts it."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from telemetry.connector.scene import Scene
from telemetry.errors import ConnectionFailed
from telemetry.semconv import Outcome


@dataclass(frozen=True, slots=True)
class Result:
    """How one session went."""

    outcome: Outcome
    attempt_id: str | None
    error: str | None = None
    step: str | None = None
    detail: str | None = None
    connect_s: float | None = None
    """Seconds from connect() to the first frame; None means that it did not get there."""


async def probe(
    make_scene: Callable[[], Scene], *, count: int, concurrency: int, stay_s: float, done: Callable[[Result], None]
) -> None:
    """Connect `count` times, at most `concurrency` at once; stay, disconnect, and report each result to `done`.

    A cancellation ends the sessions that are under way, reports them too, and leaves none behind.
    """
    turns = iter(range(count))

    async def work() -> None:
        for _ in turns:
            await session(make_scene(), stay_s, done)

    async with asyncio.TaskGroup() as workers:
        for _ in range(min(concurrency, count)):
            workers.create_task(work())


async def session(scene: Scene, stay_s: float, done: Callable[[Result], None]) -> None:
    """Connect one scene, stay, disconnect, and report."""
    began = time.monotonic()
    try:
        await scene.connect()
    except ConnectionFailed as error:
        done(Result(Outcome.FAILED, error.attempt_id, error.name, error.step, error.detail))
        return
    except asyncio.CancelledError:
        done(Result(Outcome.CANCELLED, scene.attempt_id))
        raise
    done(Result(Outcome.CONNECTED, scene.attempt_id, connect_s=time.monotonic() - began))
    try:
        await asyncio.sleep(stay_s)
    finally:
        await scene.disconnect()


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Count what came of the sessions; the rate leaves out the cancelled ones, and comes with what it divides."""
    outcomes = Counter(result.outcome for result in results)
    failed = [result for result in results if result.outcome is Outcome.FAILED]
    ended = outcomes[Outcome.CONNECTED] + len(failed)
    examples = {(result.error, result.step, result.detail): result.attempt_id for result in failed}
    reasons = Counter((result.error, result.step, result.detail) for result in failed)
    times = sorted(result.connect_s for result in results if result.connect_s is not None)
    return {
        "attempts": len(results),
        "connected": outcomes[Outcome.CONNECTED],
        "failed": len(failed),
        "cancelled": outcomes[Outcome.CANCELLED],
        "failure_ratio": len(failed) / ended if ended else None,
        "connect_p50_s": _quantile(times, 0.50),
        "connect_p95_s": _quantile(times, 0.95),
        "failures": [
            {"error": key[0], "step": key[1], "detail": key[2], "count": count, "example_attempt_id": examples[key]}
            for key, count in reasons.most_common()
        ],
    }


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The inclusive continuous quantile, as the reports compute it; None where there is nothing to rank."""
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
