"""Microphones and cameras as a scenario's client has them."""

import errno

from aiortc import MediaStreamTrack

from telemetry.connector.media import MediaUnavailable, synthetic
from telemetry.semconv import Detail


def open_device(fault: str, kind: str) -> MediaStreamTrack:
    """A device as the scenario's client has it."""
    match fault:
        case "denied":
            raise PermissionError("declined")
        case "missing":
            raise OSError(errno.ENODEV, "no such device")
        case "in_use":
            raise OSError(errno.EBUSY, "device busy")
        case "unsupported":
            raise MediaUnavailable(Detail.CAPTURE_MISSING)
    return synthetic(kind)
