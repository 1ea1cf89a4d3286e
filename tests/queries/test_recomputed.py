"""The reports that list and count, recomputed with pandas over the plain rows of a fleet of thousands.

`test_fleet.py` holds the others against the fleet's truth, and the survival curves against SciPy and statsmodels.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from telemetry import reports
from telemetry.simulator import fleet
from telemetry.simulator.fleet import START_NS
from telemetry.store.duck import Store
from tests.queries.fleets import END_NS, answer, planted

pytestmark = pytest.mark.xdist_group("fleet")
MIDDLE_NS = START_NS + int(3.5 * fleet.DAY_NS)
Wilson = tuple[pd.Series, pd.Series]


def rows_of(relation: str, where: str = "true") -> pd.DataFrame:
    """People's rows of a relation of the fleet with a saturated hour, as they are."""
    source, _ = planted("hour")
    return source.query(f"select * from {relation} where synthetic is null and {where}").to_pandas()


def reported(name: str, **params: object) -> pd.DataFrame:
    """The report over the same fleet."""
    return answer(name, planted("hour")[0], **params)


def wilson(found: pd.Series, of: pd.Series) -> Wilson:
    """The interval as the textbook has it."""
    z, p = 1.959964, found / of
    middle, spread = p + z**2 / (2 * of), z * np.sqrt(p * (1 - p) / of + z**2 / (4 * of**2))
    return (middle - spread) / (1 + z**2 / of), (middle + spread) / (1 + z**2 / of)


def test_time_to_connect() -> None:
    """Bins, shares and percentiles of each region are pandas'."""
    ended = rows_of("connections", "outcome in ('connected', 'failed')")
    ended["ms"] = (ended["connected_ns"] - ended["start_ns"]).where(ended["outcome"] == "connected") / 1e6

    found = reported("time_to_connect", by="region", bin="250ms")

    for region, group in ended.groupby("region"):
        mine = found[found["value"] == region]
        bins = (group["ms"] // 250).value_counts().sort_index()
        assert list(mine["from_ms"]) == list(bins.index * 250)
        assert list(mine["connected"]) == list(bins)
        assert set(mine["ended"]) == {len(group)}
        np.testing.assert_allclose(mine["within_ratio"], bins.cumsum() / len(group))
        np.testing.assert_allclose(mine["p95_ms"], group["ms"].quantile(0.95))


def test_queue() -> None:
    """Counts of every hour are pandas', and so is the median wait where all who queued were admitted."""
    asked = rows_of("steps", "step = 'SearchingForDigitalPerson' and queue_ns >= 0")
    asked["bucket"] = pd.to_datetime(asked["start_ns"] // 3_600_000_000_000 * 3_600_000_000_000, utc=True)
    asked["queued"] = asked["queue_position_first"].notna()
    asked["gave_up"] = asked["queued"] & (asked["outcome"] == "cancelled")
    asked["no_scene"] = (asked["outcome"] == "failed") & (asked["error_type"] == "noScene")
    by_hour = asked.groupby("bucket")

    found = reported("queue", bucket="1h").set_index("bucket")

    assert found.index.equals(by_hour.size().index)
    assert (found["asked"] == by_hour.size()).all()
    for column in ("queued", "gave_up", "no_scene"):
        assert (found[column] == by_hour[column].sum()).all(), column
    assert (found["position_max"].fillna(0) == by_hour["queue_position_first"].max().fillna(0)).all()
    calm = 0
    for bucket, group in asked[asked["queued"]].groupby("bucket"):
        if (group["outcome"] == "completed").all():
            waits = group["queue_ns"] // 1_000_000
            assert found.loc[bucket, "wait_p50_ms"] == np.quantile(waits, 0.5, method="inverted_cdf")
            calm += 1
    assert calm > 20


def test_queue_patience() -> None:
    """Who reaches each slot, and what becomes of them there, is pandas', with the textbook's interval."""
    queued = rows_of(
        "steps", "step = 'SearchingForDigitalPerson' and queue_ns >= 0 and queue_position_first is not null"
    )
    slot = queued["queue_ns"] // 5_000_000_000
    counts = queued.groupby(slot)["outcome"].value_counts().unstack(fill_value=0)
    waiting = counts.sum(axis=1)[::-1].cumsum()[::-1]

    found = reported("queue_patience", slot="5s")

    assert list(found["from_s"]) == list(counts.index * 5.0)
    assert list(found["waiting"]) == list(waiting)
    for column, outcome in (("admitted", "completed"), ("gave_up", "cancelled"), ("turned_away", "failed")):
        assert list(found[column]) == list(counts[outcome])
    low, high = wilson(counts["cancelled"], waiting)
    np.testing.assert_allclose(found["gave_up_low_ratio"], low, atol=1e-7)
    np.testing.assert_allclose(found["gave_up_high_ratio"], high, atol=1e-7)


def test_saturation() -> None:
    """How many sessions were open when each attempt began is what counting intervals gives."""
    every = rows_of("connections")
    live = every[every["connected_ns"].notna()]
    opened = np.sort(live["connected_ns"].to_numpy())
    closed = np.sort(live["disconnected_ns"].fillna(live["last_seen_ns"]).to_numpy())
    begun = every["start_ns"].to_numpy()
    open_then = np.searchsorted(opened, begun, "right") - np.searchsorted(closed, begun, "right")
    refused = ((every["outcome"] == "failed") & (every["error_type"] == "noScene")).to_numpy()
    expected = (
        pd.DataFrame({"band": open_then // 10, "refused": refused}).groupby("band")["refused"].agg(["size", "sum"])
    )

    found = reported("saturation", band=10)

    assert list(found["open_from"]) == list(expected.index * 10)
    assert list(found["attempts"]) == list(expected["size"])
    assert list(found["no_scene"]) == list(expected["sum"])
    low, high = wilson(expected["sum"], expected["size"])
    np.testing.assert_allclose(found["no_scene_low_ratio"], low, atol=1e-7)
    np.testing.assert_allclose(found["no_scene_high_ratio"], high, atol=1e-7)


def test_changes() -> None:
    """Failures before and after, and the difference with Newcombe's interval, are pandas'."""
    ended = rows_of("connections", "outcome in ('connected', 'failed')")
    ended["after"] = ended["start_ns"] >= MIDDLE_NS
    of = ended["after"].value_counts()
    keys = ["failing_step", "error_type", "detail"]
    failed = ended[ended["outcome"] == "failed"].groupby(keys)["after"].value_counts().unstack(fill_value=0)
    failed.loc[("all", "all", "all")] = failed.sum()
    p, q = failed[False] / of[False], failed[True] / of[True]
    (p_low, p_high), (q_low, q_high) = wilson(failed[False], of[False]), wilson(failed[True], of[True])

    found = reported("changes", since=MIDDLE_NS, before_since=START_NS).set_index(keys)

    assert len(found) == len(failed)
    for column, expected in {
        "before_failed": failed[False],
        "after_failed": failed[True],
        "difference_ratio": q - p,
        "difference_low_ratio": q - p - np.hypot(q - q_low, p_high - p),
        "difference_high_ratio": q - p + np.hypot(q_high - q, p - p_low),
    }.items():
        np.testing.assert_allclose(found[column].astype(float), expected.loc[list(found.index)], atol=1e-7)


@pytest.mark.parametrize("dimension", ["region", "client_version", "network_type", "runtime", "server_address"])
def test_cohorts(dimension: str) -> None:
    """Each value's attempts, failures, rest, top client, and failures expected by the hour are pandas'."""
    ended = rows_of("connections", "outcome in ('connected', 'failed')")
    ended["failed"] = ended["outcome"] == "failed"
    ended["expected"] = ended.groupby(ended["start_ns"] // 3_600_000_000_000)["failed"].transform("mean")
    values = ended.groupby(dimension).agg(
        attempts=("failed", "size"), failed=("failed", "sum"), expected=("expected", "sum")
    )
    episodes = ended[ended["failed"]].groupby(dimension)["episode_id"].nunique()
    of_clients = ended[ended["failed"]].groupby([dimension, "service_instance_id"], observed=True).size()

    found = reported("cohorts", least=1)
    found = found[found["dimension"] == dimension].set_index("value")

    assert set(found.index) == set(values.index)
    values = values.loc[list(found.index)]
    assert list(found["attempts"]) == list(values["attempts"])
    assert list(found["failed"]) == list(values["failed"])
    np.testing.assert_allclose(found["expected"], values["expected"])
    rest = values.sum() - values
    if len(values) > 1:
        np.testing.assert_allclose(found["rest_ratio"], rest["failed"] / rest["attempts"])
    assert list(found["failed_episodes"]) == list(episodes.reindex(found.index, fill_value=0))
    top = of_clients.groupby(level=0).max()
    np.testing.assert_allclose(found["top_client_ratio"] * found["failed"], top.loc[list(found.index)])


@pytest.mark.parametrize("chosen", [{}, {"outcome": "failed"}, {"detail": "busy"}, {"region": "eu-west-1"}])
def test_recent(chosen: dict[str, str]) -> None:
    """The latest attempts, all or chosen ones, are pandas', with the verdicts' owners and rules."""
    every = rows_of("verdicts")
    for column, value in chosen.items():
        every = every[every[column] == value]
    latest = every.sort_values(["start_ns", "attempt_id"], ascending=[False, True]).head(200)

    found = reported("recent", limit=200, **chosen)

    for column in ("attempt_id", "outcome", "detail", "owner", "rule"):
        assert list(found[column].astype(object).fillna("")) == list(latest[column].fillna("")), column
    took = (latest["end_ns"].fillna(latest["last_seen_ns"]) - latest["start_ns"]) / 1e6
    np.testing.assert_allclose(found["connecting_ms"], took, atol=0.001)  # pandas has these times as floats


def test_slowest() -> None:
    """The slowest of a part are pandas'."""
    queue = rows_of("durations", "part = 'queue' and step = 'SearchingForDigitalPerson' and ended = 'cancelled'")
    slowest = queue.sort_values(["duration_ns", "start_ns", "attempt_id"], ascending=[False, False, True]).head(30)

    found = reported("slowest", step="SearchingForDigitalPerson", part="queue", ended="cancelled", limit=30)

    assert list(found["attempt_id"]) == list(slowest["attempt_id"])
    np.testing.assert_allclose(found["duration_ms"], slowest["duration_ns"] / 1e6)


def test_unfinished() -> None:
    """What never ended and fell silent is pandas', the one heard of last first."""
    every = rows_of("connections")
    open_still = (every["outcome"] == "unfinished") | (every["connected_ns"].notna() & every["disconnected_ns"].isna())
    silent = every[open_still & (every["last_seen_ns"] < END_NS - 180e9)]
    silent = silent.sort_values(["last_seen_ns", "attempt_id"], ascending=[False, True])

    found = reported("unfinished", limit=10_000)

    assert list(found["attempt_id"]) == list(silent["attempt_id"])
    assert list(found["last_seen"].astype("int64")) == list(silent["last_seen_ns"])


def test_verdicts() -> None:
    """Rules are counted as pandas counts them, with their episodes, clients and last attempt."""
    every = rows_of("verdicts")
    by_rule = every.groupby(["rule", "owner", "certainty"])

    found = reported("verdicts", all=True).set_index(["rule", "owner", "certainty"])

    assert found["attempts"].to_dict() == by_rule.size().to_dict()
    assert found["episodes"].to_dict() == by_rule["episode_id"].nunique().to_dict()
    assert found["clients"].to_dict() == by_rule["service_instance_id"].nunique().to_dict()
    np.testing.assert_allclose(found["attempts_ratio"], found["attempts"] / len(every))
    for key, group in by_rule:
        assert found.loc[key, "last_attempt_id"] == group.loc[group["start_ns"].idxmax(), "attempt_id"]


@pytest.mark.parametrize("column", ["attempt_id", "episode_id", "session_id", "trace_id"])
def test_timeline(column: str) -> None:
    """All spans of all attempts with an id come in order of time, whichever of the ids it is."""
    spans = planted("hour")[0].query("select * exclude (attributes, resource_attributes) from spans").to_pandas()
    id = spans.loc[(spans["name"] == "connect") & (spans["attempt_number"] == 2) & spans["session_id"].notna(), column]
    traces = spans.loc[spans[column] == id.iloc[0], "trace_id"].unique()
    expected = spans[spans["trace_id"].isin(traces)].sort_values(
        ["start_ns", "end_ns", "trace_id", "span_id"], ascending=[True, False, True, True]
    )

    found = reported("timeline", id=id.iloc[0], since=None, until=None)

    assert list(found["span_id"]) == list(expected["span_id"])
    assert len(found) > 10


def test_ingest_health(tmp_path: Path) -> None:
    """What was stored, dropped and late, minute by minute, is what pandas counts over the batches as they came."""
    batches = list(fleet.generate(2_000, days=0.2, seed=5, batch_attempts=250))
    now: list[int] = [0]
    clock: Callable[[], int] = lambda: now[0]  # noqa: E731
    counted = []
    with Store.open(tmp_path / "store.duckdb", clock=clock) as store:
        for number, batch in enumerate(batches):
            now[0] = START_NS + number * 90 * 10**9
            again = batches[number - 1].slice(0, 100) if number else batch.slice(0, 0)
            store.commit([batch, again])
            late_ms = (batch["received_ns"].to_pandas() - batch["end_ns"].to_pandas()) / 1e6
            counted.append(
                (now[0] // (3600 * 10**9), batch.num_rows, again.num_rows, (late_ms > 60_000).sum(), late_ms.sum())
            )
        found = reports.to_pandas(
            reports.execute("ingest_health", {"since": START_NS, "until": END_NS}, store, now_ns=END_NS)
        )

    names = ["hour", "stored", "duplicates", "late", "lateness"]
    expected = pd.DataFrame(counted, columns=names).groupby("hour").sum()
    assert list(found["stored"]) == list(expected["stored"])
    assert list(found["duplicates"]) == list(expected["duplicates"])
    np.testing.assert_allclose(found["late_ratio"], expected["late"] / expected["stored"])
    np.testing.assert_allclose(found["lateness_mean_ms"], expected["lateness"] / expected["stored"], rtol=0.01)
