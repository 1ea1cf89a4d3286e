"""The client of a fault, a process of its own: `python -m tests.lab.client ORDER`, where ORDER is JSON.

Prints one JSON object per line: first the attempt's id, then each state, and how it went in the end.
"""

import asyncio
import json
import logging
import ssl
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from telemetry.connector.media import MediaSource, devices
from telemetry.connector.plan import Limits, UserMedia
from telemetry.connector.scene import Scene
from telemetry.connector.tracing import set_up_tracing
from telemetry.errors import ConnectionFailed
from tests.support.devices import open_device

COLLECTOR_PORT = 4318
"""On the loopback of the client's own namespace."""


@dataclass(frozen=True)
class ClientOrder:
    """What a client is to do."""

    url: str = ""
    token: str | None = None
    authority: str | None = None
    """The path of the certificates to trust. None means the system's."""
    requested_media: str = "none"
    required_media: str = "none"
    devices: str = "granted"
    """As in the simulator's scenarios, or `real`."""
    limits: dict[str, float] = field(default_factory=dict)
    leaves_after_s: float | None = 1.0
    """How long the client stays connected. None means until the session ends by itself."""
    gives_up_s: float | None = None

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


def say(**what: Any) -> None:
    """Tell the laboratory."""
    print(json.dumps(what), flush=True)


def source(order: ClientOrder) -> MediaSource:
    """The client's devices: for `real`, those of a machine that has none."""
    if order.devices == "real":
        return devices(camera="/dev/video-that-is-not-there", microphone="device_that_is_not_there")
    return lambda kind: open_device(order.devices, kind)


async def visit(order: ClientOrder, scene: Scene) -> str:
    """Connect, stay, leave; tell how it went."""
    gone = asyncio.Event()
    scene.on_disconnect(lambda *_: gone.set())
    try:
        async with asyncio.timeout(order.gives_up_s):
            await scene.connect()
    except ConnectionFailed as failure:
        return f"failed: {failure.detail}"
    except TimeoutError:
        return "gave up"
    try:
        async with asyncio.timeout(order.leaves_after_s):
            await gone.wait()
    except TimeoutError:
        return "left"
    return "was left"


async def main(order: ClientOrder) -> None:
    """Be a client."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # a collector that is down is meant here
    provider = set_up_tracing(
        f"http://127.0.0.1:{COLLECTOR_PORT}", protocol="http/protobuf", service_name="lab", make_global=False
    )
    async with Scene(
        order.url,
        token=order.token,
        requested_media=UserMedia(order.requested_media),
        required_media=UserMedia(order.required_media),
        media_source=source(order),
        limits=Limits(**order.limits),
        tracer_provider=provider,
        ssl_context=ssl.create_default_context(cafile=order.authority) if order.authority else None,
    ) as scene:
        scene.on_state(lambda state: say(attempt=scene.attempt_id, state=state.name))
        say(end=await visit(order, scene))
    await asyncio.to_thread(provider.shutdown)


if __name__ == "__main__":
    asyncio.run(main(ClientOrder(**json.loads(sys.argv[1]))))
