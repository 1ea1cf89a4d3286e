"""The whole pipeline in one go: a simulator, a few hundred real sessions through every scenario, and the pages.

Three processes, so that two cores have something to do: this one receives, stores and shows; one plays the
digital-person server; one is the crowd of clients. Between them are real sockets, real WebRTC and real OTLP.
"""

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from telemetry.demo import crowd
from telemetry.demo.child import child
from telemetry.demo.crowd import Kiosk, Visit
from telemetry.demo.crowd import Seen as Seen
from telemetry.serve import Addresses, Doors, serving
from telemetry.simulator.scenarios import MIX_WEIGHTS, SCENARIOS

KIOSKS: Final = 12
RELEASES: Final = ("2.3.0", "2.4.0", "2.4.1")
REGIONS: Final = ("eu-west-1", "us-east-1", "ap-southeast-2")
NETWORKS: Final = ("wifi", "wired", "cell")


def plan(sessions: int, seed: int) -> list[Visit]:
    """Every scenario once and the rest from the mix of a working day; the seed decides where and in which order."""
    chance = random.Random(seed)
    kiosks = [
        Kiosk(f"kiosk-{number:02}", chance.choice(RELEASES), chance.choice(REGIONS), chance.choice(NETWORKS))
        for number in range(1, KIOSKS + 1)
    ]
    names = list(SCENARIOS)
    names += chance.choices(list(MIX_WEIGHTS), list(MIX_WEIGHTS.values()), k=max(0, sessions - len(names)))
    chance.shuffle(names)
    return [Visit(name, chance.choice(kiosks)) for name in names[:sessions]]


def worth_telling(failed: Mapping[str, str]) -> str:
    """Of the failed attempts, by scenario, the one whose story shows most."""
    for name in ("never_answers_ice", "assets_stall", "queue_gave_up"):
        if name in failed:
            return failed[name]
    return next(iter(failed.values()))


@asynccontextmanager
async def demonstration(
    store_path: Path, doors: Doors, visits: Sequence[Visit], done: Callable[[Seen], None]
) -> AsyncIterator[Addresses]:
    """Serve, play all visits, and leave the pages open until the end of the block."""
    async with serving(store_path, doors) as addresses:
        async with child(crowd.simulate) as simulator:
            urls = await simulator.receive()
            async with child(crowd.visit_all, urls, addresses.otlp_grpc, visits) as clients:
                for _ in visits:
                    done(await clients.receive())
                await clients.receive()  # everything is exported
        yield addresses
