"""Scenarios that were recorded, made scenarios again by `telemetry repro`, and played once more."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace

from telemetry.simulator.scenarios import Scenario
from telemetry.simulator.server import Simulator
from telemetry.support.repro import Repro, reproduce
from tests.lab.truth import TRUTHS, Judged, judge_spans, recorded
from tests.test_end_to_end import SPEED, play, played_once

AT_ONCE = 3
PATIENCE_S = 1.0
"""A handshake on a busy machine may take longer than the recorded one."""


@dataclass(frozen=True)
class Replayed:
    """One scenario, recorded and replayed."""

    repro: Repro
    judged: Judged

    @property
    def same(self) -> bool:
        """The replay leads to the verdict of the recording."""
        return (self.judged.verdict.rule, str(self.judged.verdict.owner)) == (self.repro.rule, self.repro.owner)


def replay(names: Iterable[str]) -> list[Replayed]:
    """Record and replay scenarios, faster than they were and several at a time."""
    return asyncio.run(_replay({name: reproduce(*recorded(played_once()[name].spans)) for name in names}))


async def _replay(made: dict[str, Repro]) -> list[Replayed]:
    turns = asyncio.Semaphore(AT_ONCE)
    scenarios = {name: _patient(repro.scenario) for name, repro in made.items()}
    async with Simulator(
        speed=SPEED, scenarios={scenario.name: scenario for scenario in scenarios.values()}
    ) as simulator:

        async def one(name: str, repro: Repro) -> Replayed:
            async with turns:
                played = await play(scenarios[name], simulator)
            return Replayed(repro, judge_spans(name, TRUTHS[name], played.spans))

        return await asyncio.gather(*(one(*item) for item in made.items()))


def _patient(scenario: Scenario) -> Scenario:
    """The client gives up later than recorded, though the server is faster: it must get as far as it did."""
    gives_up_s = scenario.client.gives_up_s
    later_s = gives_up_s and (gives_up_s + PATIENCE_S) * SPEED
    return replace(scenario, client=replace(scenario.client, gives_up_s=later_s))
