"""Attempts of a range of time are named before they are merged; all else is left as it is."""

import pytest
import sqlglot

from telemetry.cluster.ranges import name_attempts


def changed(sql: str) -> str:
    tree = sqlglot.parse_one(sql, read="duckdb")
    name_attempts(tree)
    return tree.sql("duckdb")


@pytest.mark.parametrize(
    ("relation", "pieces"), [("verdicts", "stored_connections"), ("durations", "stored_steps")], ids=str
)
def test_attempts_of_a_range_have_a_piece_in_it(relation: str, pieces: str) -> None:
    """Also within another statement; what else is asked of them is asked of what is merged."""
    between = "start_ns >= $since AND start_ns < 2 * $until"
    told = changed(f"with found as (select region from {relation} where {between} and region = 'eu') select 1 as one")

    assert f" AND trace_id IN (SELECT trace_id FROM {pieces} WHERE {between})) SELECT 1" in told


@pytest.mark.parametrize(
    "sql",
    [
        "select region from connections",
        "select region from connections where start_ns >= $since",
        "select region from connections where start_ns >= $since or start_ns < $until",
        "select region from connections where start_ns >= last_seen_ns and start_ns < $until",
        "select region from connections where connected_ns >= $since and connected_ns < $until",
        "select region from connections join steps using (trace_id) where start_ns >= $since and start_ns < $until",
        "select name from spans where start_ns >= $since and start_ns < $until",
    ],
)
def test_what_is_no_range_stays(sql: str) -> None:
    """Half a range leaves nearly all, and of what moves with the row nothing is known before."""
    assert "stored_" not in changed(sql)
