"""From a recorded attempt to a scenario, and back to the same verdict."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from telemetry.errors import UsageError
from telemetry.simulator import scenarios as do
from telemetry.simulator.scenarios import Scenario
from telemetry.simulator.server import Simulator
from telemetry.support.asking import ask
from telemetry.support.repro import Repro, reproduce, to_source
from tests.lab.truth import TRUTHS, Judged, judge_spans, recorded
from tests.support.source import MemorySource
from tests.support.spans import attempt, table
from tests.test_end_to_end import SPEED, play, played_once

_REPLAYED = (
    *("queue_gave_up", "cancelled_in_queue", "asset_missing", "dies_connecting", "never_answers_ice"),
    *("wrong_fingerprint", "no_media", "dies_connected", "stops_media", "closed_by_server", "refused_token", "junk"),
    *("permission_denied", "permission_denied_optional"),
)
"""One for each thing that a server or client can do; all of them would take a minute."""


def _reproduced(places: tuple[int, int] | None = None, **given: object) -> Repro:
    rows = attempt(1, **given)  # type: ignore[arg-type]
    for row in rows:
        if places and row["name"] == "queue":
            row["queue_position_first"], row["queue_position_last"] = places
    source = MemorySource(table(rows))
    trace_id = {"trace_id": f"{1:032x}"}
    return reproduce(ask(source, "attempt", trace_id)[0], ask(source, "spans_of", trace_id))


def test_timings_and_places_and_code():
    """The scenario waits as long as the server did, names the same places, and closes with the same code."""
    made = _reproduced(
        outcome="failed",
        error="noScene",
        stops_in="queue",
        detail="queue_timeout",
        searching_ms=10_000,
        places=(3, 2),
        parts={"websocket.open": 1_000},
    )

    assert made.rule == "queue.timeout"
    queue = made.scenario.script[0]
    assert isinstance(queue, do.Queue)
    assert queue.positions == (3, 2)
    assert queue.each_s == pytest.approx(4.5)


def test_source_is_python():
    """The text of a scenario, evaluated, is the scenario."""
    made = _reproduced(outcome="failed", error="noUserMedia", media="microphone")
    names = {name: getattr(do, name) for name in dir(do)}

    assert eval(to_source(made), names) == made.scenario


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"outcome": "failed", "error": "serverConnectionFailed", "detail": "dns"}, "reached no server"),
        ({"outcome": "unfinished", "stops_in": "assets"}, "not recorded how"),
    ],
)
def test_what_cannot_be_played(given, says):
    """An attempt that no server can play is refused, with the reason."""
    with pytest.raises(UsageError, match=says):
        _reproduced(**given)


async def _replay_all(scenarios: Mapping[str, Scenario]) -> dict[str, Judged]:
    """Play the scenarios, faster than they were recorded and several at a time, and judge what came of them."""
    turns = asyncio.Semaphore(3)
    async with Simulator(
        speed=SPEED, scenarios={scenario.name: scenario for scenario in scenarios.values()}
    ) as simulator:

        async def one(name: str, scenario: Scenario) -> Judged:
            async with turns:
                return judge_spans(name, TRUTHS[name], (await play(scenario, simulator)).spans)

        judged = await asyncio.gather(*(one(*item) for item in scenarios.items()))
    return {one.fault: one for one in judged}


@pytest.fixture(scope="module")
def replayed() -> dict[str, tuple[Repro, Judged]]:
    """Scenarios that were recorded, made scenarios again, and played once more."""
    made = {name: reproduce(*recorded(played_once()[name].spans)) for name in _REPLAYED}
    judged = asyncio.run(_replay_all({name: _patient(repro.scenario) for name, repro in made.items()}))
    return {name: (made[name], judged[name]) for name in made}


def _patient(scenario: Scenario) -> Scenario:
    """The client gives up as late as it was recorded, though the server is faster: it must get as far as it did."""
    gives_up_s = scenario.client.gives_up_s
    return replace(scenario, client=replace(scenario.client, gives_up_s=gives_up_s and gives_up_s * SPEED))


@pytest.mark.real
@pytest.mark.xdist_group("end_to_end")
@pytest.mark.parametrize("name", _REPLAYED)
def test_replays_to_the_same_verdict(replayed, name):
    """A recorded attempt, played again from its own record, leads to the same rule and owner."""
    repro, judged = replayed[name]

    assert (judged.verdict.rule, judged.verdict.owner) == (repro.rule, repro.owner)
