"""The ledger adds up what was taken and refused, and stays small."""

from telemetry.receiver.otlp import MAX_TIME_NS
from telemetry.store.ledger import MAX_REASONS, Ledger
from tests.support.spans import attempt, table


def test_lateness_and_clocks() -> None:
    """Spans that come late, or from the future, are counted with the worst of each."""
    ledger = Ledger()
    ledger.accept("grpc", table(attempt(1, received_after_ms=90_000)), 2)
    ledger.accept("grpc", table(attempt(2, received_after_ms=-5_000)), 0)
    row = ledger.table(7).to_pylist()[0]

    spans = len(attempt(1))
    assert row["at_ns"] == 7
    assert (row["requests"], row["stored"], row["duplicates"]) == (2, 2 * spans, 2)
    assert (row["late"], row["lateness_max_ms"]) == (spans, 90_000)
    assert (row["ahead"], row["ahead_max_ms"]) == (spans, 5_000)


def test_clocks_that_are_far_off() -> None:
    """A minute of spans that a wrong clock dates into 2199, at any speed, does not pass 64 bits in their sum."""
    rows = [{**row, "end_ns": MAX_TIME_NS - 1} for row in attempt(1)]
    ledger = Ledger()
    ledger.accept("grpc", table(rows), 0)
    [row] = ledger.table(0).to_pylist()

    assert abs(row["lateness_sum_ms"]) * 60 * 300_000 < len(rows) * 2**63
    assert row["ahead_max_ms"] == max((MAX_TIME_NS - 1 - row["received_ns"]) // 10**6 for row in rows)


def test_a_flood_of_reasons() -> None:
    """However many reasons a sender makes up, the rows stay few and the counts right."""
    ledger = Ledger()
    for number in range(1000):
        ledger.refuse("grpc", f"reason {number}", 1, None)
    rows = ledger.table(0).to_pylist()

    assert len(rows) <= MAX_REASONS + 1
    assert sum(row["rejected"] for row in rows) == 1000


def test_repetitions() -> None:
    """Requests that came again are counted among those that were taken, also beside a flood of reasons."""
    waiting, commit = Ledger(), Ledger()
    for number in range(1000):
        waiting.refuse("grpc", f"reason {number}", 1, None)
    for _ in range(3):
        waiting.repeat("grpc", 20)
    commit.accept("grpc", table(attempt(1)), 1)
    commit.add(waiting)
    [row] = [row for row in commit.table(0).to_pylist() if row["reason"] == "accepted"]

    assert (row["requests"], row["stored"], row["duplicates"]) == (4, len(attempt(1)), 61)


def test_add() -> None:
    """A commit's ledger has the refusals that waited for it; should it fail, they wait on."""
    waiting, commit = Ledger(), Ledger()
    waiting.refuse("grpc", "bad", 2, "x")
    commit.refuse("grpc", "bad", 1, None)
    commit.add(waiting)

    assert len(waiting) == 1
    assert [(row["requests"], row["rejected"], row["example"]) for row in commit.table(0).to_pylist()] == [(2, 3, "x")]
