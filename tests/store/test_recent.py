"""The sieve never forgets within its window, and forgets beyond it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.store.recent import NEVER_NS, Recent, RecentRequests, hashed


def hashes(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


@given(st.lists(st.lists(st.integers(0, 200), max_size=20), max_size=30))
def test_suspects_what_was_seen(batches: list[list[int]]) -> None:
    """Within the window, exactly what came before or is there twice is suspected."""
    recent = Recent(generation=10_000)
    seen: set[int] = set()
    for batch in batches:
        found = recent.suspects(hashes(*batch)).tolist()
        assert found == [value in seen or batch.count(value) > 1 for value in batch]
        recent.add(hashes(*batch), 1)
        seen.update(batch)


def test_window() -> None:
    """The last generation is remembered whole, the one before the last two is forgotten."""
    recent = Recent(generation=100)
    for start in range(0, 1000, 10):
        recent.add(hashes(*range(start, start + 10)), start)

    assert recent.suspects(hashes(*range(900, 1000))).all()
    assert not recent.suspects(hashes(*range(0, 800))).any()
    assert 800 <= recent.since_ns <= 900


def test_empty() -> None:
    """What remembers nothing suspects nothing."""
    recent = Recent()

    assert not recent.suspects(hashes(1, 2, 3)).any()
    assert recent.suspects(hashes()).size == 0
    assert recent.since_ns == NEVER_NS


def test_requests() -> None:
    """The last generation of requests is remembered whole, the one before the last two is forgotten."""
    recent = RecentRequests(generation=100)
    for number in range(1000):
        recent.add({str(number): number + 1})
    known = [number for number in range(1000) if recent.spans(str(number)) is not None]

    assert known == list(range(known[0], 1000))
    assert 800 <= known[0] <= 900
    assert recent.spans("999") == 1000
    recent.clear()
    assert not any(recent.spans(str(number)) for number in known)


@pytest.mark.parametrize(("length", "different"), [(32, 1000), (5, 1000), (40, 7)])
def test_hashed(length: int, different: int) -> None:
    """Each span has its own number, the same in any batch and at any place in it; too long ids may be alike."""
    traces = [f"{number:0{length}x}" for number in range(1000)]
    spans = [f"{number % 7:016x}" for number in range(1000)]
    found = hashed(pa.chunked_array([traces]), pa.chunked_array([spans]))
    trace_pieces, span_pieces = (pa.chunked_array([ids[:300], ids[300:]]).slice(250) for ids in (traces, spans))

    assert np.unique(found).size == different
    assert hashed(trace_pieces, span_pieces).tolist() == found[250:].tolist()
    assert hashed(pa.chunked_array([[]], pa.string()), pa.chunked_array([[]], pa.string())).size == 0
