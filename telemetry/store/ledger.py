"""Write down what each commit took, dropped and refused: the rows of `ledger`. Pure: no I/O, no clock.

Rows are added up by transport and reason, so a flood of refused requests makes one row a commit.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ACCEPTED: Final = "accepted"
LATE_MS: Final = 60_000
"""A span that arrives this long after it ended may be missing from a report that was read before."""
AHEAD_MS: Final = -1_000
"""A span that ended after it arrived has a wrong clock; a second is left for ordinary drift."""
MOST_LATE_MS: Final = 3_650 * 86_400_000
"""Ten years, of one span in the sum: a minute of those that a wrong clock dates into 2199 would pass 64 bits."""
MAX_REASONS: Final = 256
"""Of refusals between two commits, by transport and reason; further ones are added to `other`."""

SCHEMA: Final = pa.schema(
    [
        ("at_ns", pa.int64()),
        ("transport", pa.string()),
        ("reason", pa.string()),
        ("requests", pa.int64()),
        ("stored", pa.int64()),
        ("duplicates", pa.int64()),
        ("rejected", pa.int64()),
        ("example", pa.string()),
        ("lateness_sum_ms", pa.int64()),
        ("lateness_max_ms", pa.int64()),
        ("late", pa.int64()),
        ("ahead", pa.int64()),
        ("ahead_max_ms", pa.int64()),
    ]
)
"""The columns of `queries/schema/ledger.sql`."""


@dataclass(slots=True)
class _Row:
    requests: int = 0
    stored: int = 0
    duplicates: int = 0
    rejected: int = 0
    example: str | None = None
    lateness_sum_ms: int = 0
    lateness_max_ms: int | None = None
    late: int = 0
    ahead: int = 0
    ahead_max_ms: int | None = None


class Ledger:
    """The rows of one commit, or of what is refused or comes again until the next one. One thread at a time."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def accept(self, transport: str, kept: pa.Table, duplicates: int) -> None:
        """Add a request's spans, of which `kept` are stored."""
        row = self._row(transport, ACCEPTED)
        row.requests += 1
        row.stored += kept.num_rows
        row.duplicates += duplicates
        if kept.num_rows == 0:
            return
        lateness = pc.divide(pc.subtract(kept["received_ns"], kept["end_ns"]), 1_000_000).to_numpy()
        row.lateness_sum_ms += int(lateness.clip(-MOST_LATE_MS, MOST_LATE_MS).sum())
        row.lateness_max_ms = max(int(lateness.max()), row.lateness_max_ms or 0)
        row.late += int(np.count_nonzero(lateness > LATE_MS))
        ahead = lateness[lateness < AHEAD_MS]
        row.ahead += ahead.size
        if ahead.size:
            row.ahead_max_ms = max(int(-ahead.min()), row.ahead_max_ms or 0)

    def refuse(self, transport: str, reason: str, rejected: int, example: str | None) -> None:
        """Add spans, or a whole request, that were not taken."""
        self._add(transport, reason, _Row(requests=1, rejected=rejected, example=example))

    def repeat(self, transport: str, duplicates: int) -> None:
        """Add a request that was taken before."""
        self._add(transport, ACCEPTED, _Row(requests=1, duplicates=duplicates))

    def table(self, at_ns: int) -> pa.Table:
        """The rows.

        Args:
            at_ns: UTC, the receiver's clock.
        """
        rows = [
            {"at_ns": at_ns, "transport": transport, "reason": reason}
            | {name: getattr(row, name) for name in _Row.__slots__}
            for (transport, reason), row in self._rows.items()
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def add(self, other: "Ledger") -> None:
        """Add the refusals and repetitions that `other` holds."""
        for (transport, reason), row in other._rows.items():
            self._add(transport, reason, row)

    def clear(self) -> None:
        """Hold nothing any more."""
        self._rows.clear()

    def _add(self, transport: str, reason: str, more: _Row) -> None:
        full = len(self._rows) >= MAX_REASONS and reason != ACCEPTED and (transport, reason) not in self._rows
        row = self._row(transport, "other" if full else reason)
        row.requests += more.requests
        row.duplicates += more.duplicates
        row.rejected += more.rejected
        row.example = row.example or more.example

    def _row(self, transport: str, reason: str) -> _Row:
        return self._rows.setdefault((transport, reason), _Row())
