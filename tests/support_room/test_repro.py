"""From a recorded attempt to a scenario, and back to the same verdict."""

import pytest

from telemetry.errors import UsageError
from telemetry.simulator import scenarios as do
from telemetry.support.asking import ask
from telemetry.support.repro import Repro, reproduce, to_source
from tests.lab.replay import Replayed, replay
from tests.support.source import MemorySource
from tests.support.spans import attempt, table

_REPLAYED = (
    *("queue_gave_up", "cancelled_in_queue", "asset_missing", "dies_connecting", "never_answers_ice"),
    *("wrong_fingerprint", "no_media", "dies_connected", "stops_media", "closed_by_server", "refused_token", "junk"),
    *("permission_denied", "permission_denied_optional"),
)
"""One for each thing that a server or client can do; `make lab` replays all scenarios, which takes a minute."""


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


@pytest.fixture(scope="module")
def replayed() -> dict[str, Replayed]:
    """Scenarios that were recorded, made scenarios again, and played once more."""
    return {one.judged.fault: one for one in replay(_REPLAYED)}


@pytest.mark.real
@pytest.mark.xdist_group("end_to_end")
@pytest.mark.parametrize("name", _REPLAYED)
def test_replays_to_the_same_verdict(replayed, name):
    """A recorded attempt, played again from its own record, leads to the same rule and owner."""
    one = replayed[name]

    assert one.same, (one.judged.verdict.rule, one.repro.rule)
