"""Tell which spans are stored already: the sieve of `recent` finds suspects, and these are looked up in the file.

A request that was taken whole is known by its digest, without its spans.
"""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from telemetry.store import relations
from telemetry.store.recent import NEVER_NS, REQUESTS, Hashes, Recent, RecentRequests, hashed
from telemetry.store.statements import execute, registered
from telemetry.store.tail import Tail


class Duplicates:
    """Knows the spans that were stored lately. One thread at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tail: Tail, remembered: int) -> None:
        """
        Args:
            tail: what waits.
            remembered: half of the spans among which duplicates are found, at least.
        """
        self._connection = connection
        self._tail = tail
        self._remembered = remembered
        self._recent = Recent(remembered)
        self.requests = RecentRequests()

    def remember(self) -> None:
        """Add what arrived last in the file, and what waits: senders repeat what a crash left without an answer."""
        self._remember_requests()
        # By the order of arrival: clocks jump.
        with registered(self._connection, waiting_spans=self._tail.waiting("spans")):
            found = self._connection.sql(
                f"select trace_id, span_id, received_ns {relations.last_rows('spans', self._remembered)} "
                "union all select trace_id, span_id, received_ns from waiting_spans"
            ).to_arrow_reader(100_000)
            hashes, received = [], NEVER_NS
            for batch in found:
                hashes.append(hashed(pa.chunked_array([batch["trace_id"]]), pa.chunked_array([batch["span_id"]])))
                received = min(received, pc.min(batch["received_ns"]).as_py())
        if hashes:
            self.add(np.concatenate(hashes), received)

    def _remember_requests(self) -> None:
        with registered(self._connection, waiting_requests=self._tail.waiting("requests")):
            known = self._connection.execute(
                f"{relations.last_rows('requests', REQUESTS)} union all from waiting_requests"
            ).fetchall()
        self.requests.add(dict(known))

    def add(self, hashes: Hashes, arrived_ns: int) -> None:
        """Remember spans that are stored now.

        Args:
            arrived_ns: when the first of them arrived.
        """
        self._recent.add(hashes, arrived_ns)

    def unseen(self, spans: pa.Table, hashes: Hashes, *, exact: bool) -> NDArray[np.bool_]:
        """Which spans are not stored already, and did not come before in these.

        Args:
            exact: look for all of them in the whole file.
        """
        suspects = np.ones(spans.num_rows, np.bool_) if exact else self._recent.suspects(hashes)
        keep = np.ones(spans.num_rows, np.bool_)
        if suspects.any():
            ids = spans.select(["trace_id", "span_id"]).filter(pa.array(suspects))
            keep[suspects] = self._first_seen(ids, 0 if exact else self._recent.since_ns)
        return keep

    def _first_seen(self, suspects: pa.Table, since_ns: int) -> list[bool]:
        """Which suspects are neither stored nor a repetition of one before.

        Args:
            since_ns: what arrived before it is not looked at.
        """
        # What a fold moves meanwhile is found twice, and never missed: memory is asked first.
        with registered(self._connection, suspects=suspects, waiting_spans=self._tail.waiting("spans")):
            columns = "trace_id, span_id, received_ns"
            rows = execute(
                self._connection,
                f"with spans as (select {columns} from stored.spans union all select {columns} from waiting_spans) "
                "select trace_id, span_id from spans semi join suspects using (trace_id, span_id) "
                "where received_ns >= $since",
                {"since": since_ns},
            ).fetchall()
        seen = set(rows)
        first = []
        for key in zip(suspects["trace_id"].to_pylist(), suspects["span_id"].to_pylist(), strict=True):
            first.append(key not in seen)
            seen.add(key)
        return first
