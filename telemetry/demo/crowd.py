"""The two sides of a demonstration, each for a process of its own: a simulator, and clients that visit it."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from telemetry import semconv
from telemetry.connector.media import MediaUnavailable, synthetic
from telemetry.connector.plan import Limits, Retry, UserMedia
from telemetry.connector.scene import Scene
from telemetry.connector.tracing import set_up_tracing
from telemetry.demo.child import Parent
from telemetry.errors import ConnectionFailed
from telemetry.semconv import Detail
from telemetry.simulator.scenarios import SCENARIOS, Client
from telemetry.simulator.server import Simulator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SPEED: Final = 4.0
"""The simulator's waits are divided by this, so that hundreds of sessions fit in a minute."""
AT_ONCE: Final = 20
"""Most of a visit is waiting; more at once only makes the steps wait for the processor."""
STAY_S: Final = 0.5
ENDS_WITHIN_S: Final = 15.0
"""A client that waits for the server to end the session waits no longer than this."""
SHORT: Final = Limits(
    searching_s=2, downloading_s=2, connecting_s=8, ice_s=2, first_frame_s=2, media_silence_s=1.5, sample_every_s=1
)
"""For the scenarios that only a deadline of the client's ends. The others keep the usual limits, for a busy machine."""
USUAL: Final = Limits(sample_every_s=1)

_REFUSALS: Final[Mapping[str, Detail]] = {
    "denied": Detail.PERMISSION_DENIED,
    "missing": Detail.DEVICE_NOT_FOUND,
    "in_use": Detail.DEVICE_IN_USE,
    "broken": Detail.DEVICE_FAILED,
    "unsupported": Detail.CAPTURE_MISSING,
}


@dataclass(frozen=True, slots=True)
class Kiosk:
    """A machine where people meet digital persons."""

    name: str
    release: str
    """The version of its client."""
    region: str
    network: str


@dataclass(frozen=True, slots=True)
class Visit:
    """One person's wish to talk to a digital person."""

    scenario: str
    kiosk: Kiosk


@dataclass(frozen=True, slots=True)
class Seen:
    """How a visit went, as the client saw it."""

    scenario: str
    attempt_id: str | None
    error: str | None
    """None means that it connected, or gave up by itself."""


async def simulate(parent: Parent) -> None:
    """Play the digital-person server; send the address of every scenario."""
    async with Simulator(speed=SPEED) as simulator:
        parent.send({name: simulator.url(name) for name in SCENARIOS})
        await asyncio.get_running_loop().create_future()


async def visit_all(parent: Parent, urls: Mapping[str, str], endpoint: str, visits: Sequence[Visit]) -> None:
    """Make all visits; send a `Seen` after each, and None when every span has been exported."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]  # what the user set for applications is not meant for the demonstration
    providers = {kiosk: _tracing(kiosk, endpoint) for kiosk in {visit.kiosk for visit in visits}}
    waiting = iter(visits)

    async def person() -> None:
        for visit in waiting:
            parent.send(await make(visit, urls[visit.scenario], providers[visit.kiosk]))

    try:
        async with asyncio.TaskGroup() as people:
            for _ in range(AT_ONCE):
                people.create_task(person())
    finally:
        for provider in providers.values():
            await asyncio.to_thread(provider.shutdown)
    parent.send(None)


async def make(visit: Visit, url: str, provider: "TracerProvider") -> Seen:
    """Make one visit, as its scenario says that the client behaves."""
    client = SCENARIOS[visit.scenario].client
    scene = Scene(
        url,
        requested_media=UserMedia(client.requested_media),
        required_media=UserMedia(client.required_media),
        media_source=_source(client),
        persistent=client.persistent,
        retry=Retry(attempts=client.attempts, first_delay_s=0.2),
        limits=SHORT if client.meets_deadline else USUAL,
        tracer_provider=provider,
    )
    try:
        await _behave(scene, client)
    except ConnectionFailed as error:
        return Seen(visit.scenario, error.attempt_id, error.name)
    return Seen(visit.scenario, scene.attempt_id, None)


async def _behave(scene: Scene, client: Client) -> None:
    ended = asyncio.Event()
    scene.on_disconnect(lambda *_: ended.set())
    async with scene:
        with suppress(TimeoutError):
            async with asyncio.timeout(client.gives_up_s / SPEED if client.gives_up_s else None):
                await scene.connect()
        if not client.leaves:
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), ENDS_WITHIN_S)
        elif not client.gives_up_s:
            await asyncio.sleep(STAY_S)
            if client.reconnects:
                await scene.disconnect()
                await scene.connect()
                await asyncio.sleep(STAY_S)


def _tracing(kiosk: Kiosk, endpoint: str) -> "TracerProvider":
    return set_up_tracing(
        endpoint,
        protocol="grpc",
        service_name="kiosk",
        service_version=kiosk.release,
        resource={
            semconv.SERVICE_INSTANCE_ID: kiosk.name,
            semconv.DEPLOYMENT_ENVIRONMENT_NAME: "demo",
            semconv.CLOUD_REGION: kiosk.region,
            semconv.NETWORK_CONNECTION_TYPE: kiosk.network,
        },
        make_global=False,
    )


def _source(client: Client) -> Any:
    refusal = _REFUSALS.get(client.devices)
    if refusal is None:
        return synthetic

    def refuse(kind: str) -> Any:
        raise MediaUnavailable(refusal)

    return refuse
