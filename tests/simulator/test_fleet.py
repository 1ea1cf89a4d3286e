"""Synthetic fleets: repeatable, whole, true to their truth, and with nothing in them but what was planted."""

from collections.abc import Sequence

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from telemetry.receiver.otlp import SPANS_SCHEMA
from telemetry.settings import data_folder
from telemetry.simulator import fleet
from telemetry.simulator.fleet import Effect

COUNT = 6_000
EFFECTS = (fleet.bad_release(), fleet.saturated_hour(), fleet.heavy_client())


def spans(count: int = COUNT, seed: int = 1, effects: Sequence[Effect] = EFFECTS) -> pa.Table:
    """A fleet of three batches or more."""
    return pa.concat_tables(fleet.generate(count, 7, seed, effects, batch_attempts=2_000))


def truth(count: int = COUNT, seed: int = 1, effects: Sequence[Effect] = EFFECTS) -> pd.DataFrame:
    """What lies behind `spans`."""
    return pa.concat_tables(fleet.truth(count, 7, seed, effects, batch_attempts=2_000)).to_pandas()


@pytest.fixture(scope="module")
def db() -> duckdb.DuckDBPyConnection:
    """The fleet as the relations that reports read."""
    connection = duckdb.connect()
    connection.register("given", spans())
    connection.execute("create table spans as from given")
    for name in ("connections", "steps", "sessions", "episodes", "samples"):
        connection.execute((data_folder("queries") / "schema" / f"{name}.sql").read_text())
    return connection


def one(db: duckdb.DuckDBPyConnection, sql: str) -> tuple[object, ...]:
    """The only row of a query."""
    (row,) = db.execute(sql).fetchall()
    return tuple(row)


def test_schema_and_count(db) -> None:
    """The tables have the receiver's columns, and exactly as many attempts as were asked for."""
    assert spans(10).schema == SPANS_SCHEMA
    assert one(db, "select count(*) from connections") == (COUNT,)


def test_same_seed_same_fleet() -> None:
    """The same arguments give the same spans; another seed gives others."""
    assert spans(500).equals(spans(500))
    assert not spans(500).equals(spans(500, seed=2))


def test_one_batch_has_retries() -> None:
    """A fleet that fits into one batch has retries and reconnects like any other, and as many attempts as asked for."""
    made = pa.concat_tables(fleet.truth(1_000, 7, seed=1)).to_pandas()

    assert len(made) == 1_000
    assert made["attempt_number"].max() >= 2
    assert made["resumed"].any()
    assert made["start_ns"].max() > fleet.START_NS + 6.5 * fleet.DAY_NS


def test_connections_tell_the_truth(db) -> None:
    """What the relations derive from the spans is what happened: outcome, error, step, part, detail and times."""
    facts = ["outcome", "error_type", "detail", "failing_step", "failing_part", "start_ns", "region", "client_version"]
    derived = db.execute(f"select attempt_id, {', '.join(facts)} from connections order by attempt_id").df()
    expected = truth().sort_values("attempt_id", ignore_index=True)[["attempt_id", *facts]]

    pd.testing.assert_frame_equal(derived, expected, check_dtype=False)


def test_every_kind_of_attempt_occurs(db) -> None:
    """A fleet has all outcomes, retries, reconnects that resume and that do not, probes, queues and deadlines."""
    assert one(db, "select count(distinct outcome), max(attempt_number) >= 3 from connections") == (4, True)
    assert one(
        db,
        """
        select count(*) filter (resumed) > 10, count(*) filter (not resumed) > 10
        from connections where resume_requested
        """,
    ) == (True, True)
    assert one(db, "select count(*) > 50 from connections where synthetic = 'test'") == (True,)
    assert one(db, "select count(*) > 5 from connections where detail = 'step_deadline'") == (True,)
    assert one(db, "select count(*) > 50 from steps where queue_position_first > queue_position_last") == (True,)
    assert one(db, "select max(connections) > 1, max(resumed) > 0 from sessions") == (True, True)


def test_parts_fit_their_steps(db) -> None:
    """The parts of every finished step leave something over, never less than nothing."""
    assert one(
        db, "select count(*) from steps where outcome != 'unfinished' and (other_ns is null or other_ns < 0)"
    ) == (0,)


def test_deadlines_hold(db) -> None:
    """No step outlasts its deadline, and no attempt the deadline of the whole."""
    for state, limit_ns in fleet.STEP_LIMITS_NS.items():
        assert one(db, f"select max(duration_ns) from steps where step = '{state}'")[0] <= limit_ns
    assert one(db, "select max(end_ns - start_ns) from connections")[0] <= fleet.CONNECT_LIMIT_NS


def test_traces_are_whole(db) -> None:
    """Span ids are unique; an attempt that ended has one root, and all its parents exist."""
    assert one(db, "select count(*) - count(distinct trace_id || span_id) from spans") == (0,)
    assert one(
        db,
        """
        select count(*)
        from spans as child join connections using (trace_id)
        where end_ns is not null and parent_span_id is not null
          and not exists (from spans as p where p.trace_id = child.trace_id and p.span_id = child.parent_span_id)
        """.replace("end_ns is not null", "connections.end_ns is not null"),
    ) == (0,)
    assert one(
        db, "select max(n) from (select count(*) filter (name = 'connect') as n from spans group by trace_id)"
    ) == (1,)


def test_session_id_from_acceptance_on(db) -> None:
    """A span has the sessionId exactly if it ended after the server accepted."""
    assert one(
        db, "select count(*) from spans where session_id is null and name in ('Connected', 'sample', 'assets')"
    ) == (0,)
    assert one(db, "select count(*) from spans where session_id is not null and name = 'websocket.open'") == (0,)


def test_planted_effects_show() -> None:
    """Each planted effect stands out in its cohort and nowhere else."""
    facts = truth(20_000)
    facts["failed"] = facts["outcome"] == "failed"
    heavy = facts["client"] == 7
    release = (facts["client_version"] == "1.6.0") & (facts["region"] == "eu-west-1")
    day = (facts["start_ns"] - fleet.START_NS) / fleet.DAY_NS
    hour = (day >= 2.5) & (day < 2.5 + 1 / 24)
    rest = ~heavy & ~release & ~hour

    assert 0.08 < heavy.mean() < 0.25
    assert facts[heavy]["failed"].mean() > 0.4
    assert facts[release & ~heavy]["failed"].mean() > 0.2
    assert facts[hour & ~heavy]["queued"].mean() > 0.7
    assert facts[hour & ~heavy]["error_type"].eq("noScene").mean() > 0.25
    assert facts[rest]["failed"].mean() < 0.06


def test_without_effects_cohorts_are_alike() -> None:
    """Nothing planted, nothing to find: failure rates of all cohorts agree within chance."""
    facts = truth(20_000, effects=())
    failed = facts["outcome"] == "failed"
    for name in ("region", "client_version", "network_type", "runtime"):
        groups = failed.groupby(facts[name])
        sigma = (failed.mean() * (1 - failed.mean()) / groups.size()) ** 0.5
        assert ((groups.mean() - failed.mean()).abs() < 4 * sigma).all(), name
