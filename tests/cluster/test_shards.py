"""What a few rows name is looked up in the shards that have it; all else is left as it is."""

import pytest
import sqlglot

from telemetry.cluster.shards import name_shards

NAMED = "with named as (select trace_id as named_trace_id from ids where id_hash = 7)"


def one_of(values: str, table: str, place: int) -> str:
    return f"TUPLEELEMENT((SELECT TUPLE({values}) FROM {table}), {place})"


def changed(sql: str) -> str:
    tree = sqlglot.parse_one(sql, read="duckdb")
    name_shards(tree)
    return tree.sql("duckdb")


@pytest.mark.parametrize("joined", ["trace_id = named_trace_id", "start_ns > 1 and named_trace_id = spans.trace_id"])
def test_a_join_with_what_a_hash_names_is_said_as_values(joined: str) -> None:
    """Also where the join has other conditions, and through another such join."""
    once = changed(f"{NAMED} select name from spans join named on {joined}")
    chain = ", attempts as (select trace_id as known_id from connections join named on trace_id = named_trace_id)"
    twice = changed(f"{NAMED}{chain} select name from spans join attempts on trace_id = known_id")

    assert f"trace_id IN (ASSUMENOTNULL({one_of('GROUPARRAY(named_trace_id)', 'named', 1)}))" in once
    assert f"trace_id IN (ASSUMENOTNULL({one_of('GROUPARRAY(known_id)', 'attempts', 1)}))" in twice


def test_times_of_what_is_named_are_said_as_values() -> None:
    """Rows that lie between them are of the days between the first and the last."""
    named = NAMED.replace("named_trace_id", "named_trace_id, start_ns - 1 as from_ns, last_seen_ns as to_ns")
    between = "spans.start_ns >= from_ns and start_ns < to_ns and end_ns > 7"
    told = changed(f"{named} select name from spans join named on trace_id = named_trace_id where {between}")

    row = "GROUPARRAY(named_trace_id), MIN(from_ns), MAX(to_ns)"
    assert told.endswith(
        f" AND trace_id IN (ASSUMENOTNULL({one_of(row, 'named', 1)}))"
        f" AND spans.start_ns >= {one_of(row, 'named', 2)} AND start_ns < {one_of(row, 'named', 3)}"
    )


def test_a_choice_of_hashes_that_parameters_make_is_said_as_values() -> None:
    """They are known before any shard is asked."""
    sql = "with hashed as (select unnest($hashes) as h) select id from ids where id_hash in (select h from hashed)"

    assert "id_hash IN (ASSUMENOTNULL((SELECT GROUPARRAY(h) FROM hashed)))" in changed(sql)


@pytest.mark.parametrize(
    "rest",
    [
        "select name from spans left join named on trace_id = named_trace_id",
        "select name from spans join named on trace_id = named_trace_id or name = 'sample'",
        "select name from spans join named on attempt_id = named_trace_id",
        ", all_of as (select trace_id as t from connections) select name from spans join all_of on trace_id = t",
        ", both as (select named_trace_id as t from named union all select trace_id as t from connections) "
        "select name from spans join both on trace_id = t",
    ],
)
def test_what_is_no_look_up_stays(rest: str) -> None:
    """An outer join keeps other rows, and what many rows name is no list of values."""
    assert "GROUPARRAY" not in changed(f"{NAMED} {rest}")
