"""An attempt laid out in time."""

from telemetry.support import timeline
from telemetry.support.asking import ask
from tests.support.source import MemorySource
from tests.support.spans import MS, T0, attempt, table


def _laid_out(rows):
    source = MemorySource(table(rows))
    trace_id = {"trace_id": f"{1:032x}"}
    return (ask(source, "attempt", trace_id)[0], ask(source, "spans_of", trace_id), ask(source, "steps_of", trace_id))


def test_ladder():
    """Each state is there with the time from which and for which it lasted."""
    _, spans, _ = _laid_out(attempt(1, searching_ms=300, downloading_ms=500, connecting_ms=400, live_ms=2_000))

    assert [(rung.state, rung.offset_ms, rung.lasted_ms) for rung in timeline.ladder(spans, T0)] == [
        ("SearchingForDigitalPerson", 0, 300),
        ("DownloadingAssets", 300, 500),
        ("ConnectingToDigitalPerson", 800, 400),
        ("Connected", 1_200, 2_000),
        ("Disconnected", 3_200, None),
    ]


def test_parts_and_gaps_add_up():
    """The parts of a step and its named gaps make up the whole step."""
    _, spans, steps = _laid_out(attempt(1, media="microphone"))
    bars = timeline.waterfall(spans, T0)

    for step in steps:
        inner = [bar for bar in bars if bar.step == step["step"] and bar.kind != "step"]
        assert sum(bar.duration_ms for bar in inner) == step["duration_ns"] / MS
        assert sum(bar.duration_ms for bar in inner if bar.kind == "gap") == step["other_ns"] / MS
    assert next(bar.name for bar in bars if bar.kind == "gap") == "other, after queue"


def test_open_step():
    """A step that never ended is open, and what follows is not invented."""
    _, spans, _ = _laid_out(attempt(1, outcome="unfinished", stops_in="assets"))
    bars = timeline.waterfall(spans, T0)

    assert (bars[-1].name, bars[-1].duration_ms, bars[-1].outcome) == ("DownloadingAssets", None, "unfinished")


def test_missing_is_named():
    """Lost spans, lost heartbeats and a clock that is ahead are each named."""
    rows = [
        {**row, "received_ns": row["end_ns"] - 5_000 * MS}
        for row in attempt(1, samples=5)
        if row["name"] not in ("connect", "DownloadingAssets") and row.get("sample_number") not in (2, 3)
    ]
    facts, spans, _ = _laid_out(rows)

    assert timeline.missing(spans, facts) == (
        "The connect span is missing: how connect() ended was not recorded.",
        "The span of DownloadingAssets is missing, though the attempt went beyond it.",
        "2 of 5 heartbeats are missing.",
        "The client's clock is at least 5.00 s ahead of the receiver's.",
    )


def test_nothing_is_missing():
    """A whole attempt has nothing to name."""
    facts, spans, _ = _laid_out(attempt(1, samples=5))

    assert timeline.missing(spans, facts) == ()


def test_order_of_arrival_does_not_matter():
    """The same spans in another order give the same picture."""
    rows = attempt(1, samples=3)

    (_, spans, _), (_, turned, _) = _laid_out(rows), _laid_out(rows[::-1])

    assert timeline.waterfall(spans, T0) == timeline.waterfall(turned, T0)
    assert timeline.moments(spans, T0) == timeline.moments(turned, T0)


def test_moments_are_limited(monkeypatch):
    """A session with endless heartbeats is cut off, and the cut is counted."""
    monkeypatch.setattr(timeline, "MOST_MOMENTS", 10)
    _, spans, _ = _laid_out(attempt(1, samples=30))

    shown, left_out = timeline.moments(spans, T0)

    assert len(shown) == 10
    assert left_out > 30
