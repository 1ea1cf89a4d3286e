"""Remember which spans arrived lately, as 64-bit hashes, and which requests, by digests. Pure: no I/O, no clock.

Spans pass a sieve: "never seen" is certain, "perhaps seen" errs about once in 10^12 spans.
So only what is perhaps a duplicate must be looked up in the file.
Of a request that is known, nothing must.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

GENERATION: Final = 2_000_000
"""Hashes in a generation, 16 MB. Two are kept, so the window is the last 2 to 4 million spans:
half a minute at 75,000 spans/s, half an hour at 1,000. SDKs stop sending again after ten seconds."""
REQUESTS: Final = 32_768
"""Digests in a generation, some 6 MB. At 75,000 spans/s in requests of 512, the window is 4 to 8 minutes."""
NEVER_NS: Final = 2**63 - 1
"""Later than any arrival."""

Hashes = NDArray[np.uint64]
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_HALF: Final = np.uint64(32)


def hashed(trace_ids: pa.ChunkedArray, span_ids: pa.ChunkedArray) -> Hashes:
    """A number for each span, by its two ids.

    By ourselves, because asking DuckDB costs each commit a millisecond.
    """
    mixed = np.zeros(len(trace_ids), np.uint64)
    for ids, length in ((trace_ids, 32), (span_ids, 16)):
        for word in _words(ids, length):
            mixed = (mixed ^ word) * _ODD
            mixed ^= mixed >> _HALF
    return mixed


def _words(ids: pa.ChunkedArray, length: int) -> Hashes:
    """So many characters of each id, eight to a number: first those of all ids, then the next of all ..."""
    try:
        fixed = ids.cast(pa.binary(length))
    except pa.ArrowInvalid:  # ids of another length, which OTLP has not: what is cut off makes them only seem alike
        cut = [id.encode()[:length].ljust(length, b"\0") for id in ids.to_pylist()]
        fixed = pa.chunked_array([cut], pa.binary(length))
    pieces = [np.empty(0, np.uint8)]
    for piece in fixed.chunks:
        pieces.append(np.frombuffer(piece.buffers()[1], np.uint8)[piece.offset * length :][: len(piece) * length])
    words: Hashes = np.concatenate(pieces).view(np.uint64).reshape(len(ids), length // 8).T
    return words


class Recent:
    """The hashes of the last few million spans. One thread at a time."""

    def __init__(self, generation: int = GENERATION) -> None:
        self._generation = generation
        self._young: list[Hashes] = []
        """Sorted runs, each more than twice as long as the next: so there are few, and each hash is merged rarely."""
        self._old: list[Hashes] = []
        self._young_since_ns = self._old_since_ns = NEVER_NS

    @property
    def since_ns(self) -> int:
        """When the oldest of them arrived."""
        return min(self._young_since_ns, self._old_since_ns)

    def suspects(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which of them were perhaps seen before, or are there twice."""
        asked, places, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        known = counts > 1
        for run in (*self._young, *self._old):
            known |= _contained(run, asked)
        return known[places]

    def add(self, hashes: Hashes, arrived_ns: int) -> None:
        """Remember them; the older generation is forgotten when the younger one is full.

        Args:
            arrived_ns: when the first of them arrived.
        """
        self._young_since_ns = min(self._young_since_ns, arrived_ns)
        run = np.sort(hashes)
        longer = self._young  # replaced as a whole: where memory is wanting, nothing is forgotten
        while longer and longer[-1].size <= 2 * run.size:
            # A stable sort of two sorted runs is one merge.
            run = np.sort(np.concatenate([longer[-1], run]), kind="stable")
            longer = longer[:-1]
        self._young = [*longer, run]
        if sum(one.size for one in self._young) >= self._generation:
            self._old, self._young = self._young, []
            self._old_since_ns, self._young_since_ns = self._young_since_ns, NEVER_NS


class RecentRequests:
    """The digests of the last requests that were taken, and how many spans each has.

    One thread at a time may change them; any may ask.
    """

    def __init__(self, generation: int = REQUESTS) -> None:
        self._generation = generation
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}

    def spans(self, digest: str) -> int | None:
        """Of a request that was taken; None where it is not known."""
        return self._young.get(digest) or self._old.get(digest)

    def add(self, taken: Mapping[str, int]) -> None:
        """Remember them; the older generation is forgotten when the younger one is full."""
        self._young.update(taken)
        if len(self._young) >= self._generation:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        """Know none any more."""
        self._young, self._old = {}, {}


def _contained(known: Hashes, asked: Hashes) -> NDArray[np.bool_]:
    """Which of `asked` are in `known`; both are sorted, which keeps the search in the processor's cache."""
    if known.size == 0:
        return np.zeros(asked.size, np.bool_)
    places = np.searchsorted(known, asked)
    places[places == known.size] = 0
    found: NDArray[np.bool_] = known[places] == asked
    return found
