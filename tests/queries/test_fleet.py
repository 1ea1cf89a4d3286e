"""Every figure that matters, recomputed without SQL over a fleet of thousands, and its planted effects found.

The fleet is the simulator's, with its truth. What the reports say is compared with pandas over that truth or over the
plain rows, the survival curves with SciPy's, and percentiles and competing risks with statsmodels'.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import CensoredData, ecdf
from statsmodels.duration.survfunc import CumIncidenceRight, SurvfuncRight

from telemetry.simulator import fleet
from telemetry.simulator.fleet import START_NS
from tests.queries.fleets import END_NS, answer, planted
from tests.support.source import MemorySource

pytestmark = pytest.mark.xdist_group("fleet")


def test_failure_rate_by_hour() -> None:
    """The failure rate of every hour is that of the truth."""
    source, truth = planted("none")
    truth = truth.assign(bucket=truth["start_ns"] // 3_600_000_000_000 * 3_600_000_000_000)

    rows = answer("failure_rate", source, bucket="1h").set_index("bucket")

    counts = truth.groupby("bucket")["outcome"].value_counts().unstack(fill_value=0)
    counts.index = pd.to_datetime(counts.index, utc=True)
    ended = counts["connected"] + counts["failed"]
    assert rows.index.equals(counts.index)
    assert (rows["ended"] == ended).all()
    assert (rows["failed"] == counts["failed"]).all()
    assert (rows["cancelled"] == counts["cancelled"]).all()
    assert (rows["unfinished"] == counts["unfinished"]).all()
    np.testing.assert_allclose(rows["failure_ratio"], counts["failed"] / ended.where(ended > 0))


@pytest.mark.parametrize(("by", "column"), [("reason", "error_type"), ("detail", "detail"), ("step", "failing_step")])
def test_failure_rate_by_reason(by: str, column: str) -> None:
    """Failures per reason, detail and step are those of the truth."""
    source, truth = planted("none")

    rows = answer("failure_rate", source, bucket="all", by=by)

    expected = truth.loc[truth["outcome"] == "failed", column].value_counts()
    assert dict(zip(rows["value"], rows["failed"], strict=True)) == expected.to_dict()


def test_errors_and_funnel() -> None:
    """The errors and the funnel's losses add up to the truth's failures, detail by detail and step by step."""
    source, truth = planted("none")
    failed = truth[truth["outcome"] == "failed"]

    errors = answer("errors", source).groupby("detail", observed=True)["attempts"].sum()
    funnel = answer("funnel", source).set_index("step")

    assert errors.to_dict() == failed["detail"].value_counts().to_dict()
    assert funnel.loc[funnel["failed"] > 0, "failed"].to_dict() == failed["failing_step"].value_counts().to_dict()
    assert funnel["attempts"].iloc[0] == len(truth)
    assert funnel["attempts"].iloc[-1] >= (truth["outcome"] == "connected").sum()


def test_episodes() -> None:
    """First-try and eventual success, and tries until then, are those of the truth."""
    source, truth = planted("none")
    truth = truth.sort_values("start_ns")
    wishes = truth.groupby("episode_id").agg(
        outcomes=("outcome", list), tries=("outcome", "size"), first=("outcome", "first"), last=("outcome", "last")
    )
    got_through = wishes["outcomes"].map(lambda outcomes: "connected" in outcomes)
    gave_up = ~got_through & wishes["outcomes"].map(lambda o: "failed" in o) & (wishes["last"] != "unfinished")

    (row,) = answer("episodes", source, bucket="all").to_dict("records")

    decided = (got_through | gave_up).sum()
    assert row["episodes"] == len(wishes)
    assert row["decided"] == decided
    assert row["first_try_ratio"] == pytest.approx((wishes["first"] == "connected").sum() / decided)
    assert row["eventual_ratio"] == pytest.approx(got_through.sum() / decided)
    assert row["tries_mean"] == pytest.approx(wishes.loc[got_through, "tries"].mean())
    assert (wishes["tries"] > 1).any()
    tries = answer("tries", source).set_index("tries")
    assert tries["connected"].to_dict() == wishes.loc[got_through | gave_up].assign(
        n=got_through
    ).groupby("tries")["n"].sum().to_dict()  # fmt: skip


def test_sessions_and_episodes_equal_their_relations() -> None:
    """The reports, which look only near their range, say what the whole relations say."""
    source, _ = planted("none")
    (sessions,) = answer("sessions", source, bucket="all").to_dict("records")
    (episodes,) = answer("episodes", source, bucket="all").to_dict("records")

    relation = source.query("select * from sessions where synthetic is null").to_pandas()
    assert sessions["accepted"] == len(relation)
    assert sessions["connections"] == relation["connections"].sum()
    assert sessions["resumed"] == relation["resumed"].sum() > 0
    assert sessions["live_p50_s"] == pytest.approx(relation["connected_for_ns"].median() / 1e9)
    assert sessions["ended_connection_lost"] == (relation["last_disconnect_reason"] == "connectionLost").sum()
    assert episodes["episodes"] == source.query("select 1 from episodes where synthetic is null").num_rows


def durations(source: MemorySource, step: str, part: str | None = None) -> pd.DataFrame:
    """The plain rows behind the survival reports, in whole milliseconds."""
    rows = source.query(
        "select duration_ns // 1000000 as ms, ended from durations"
        " where step = $step and part is not distinct from $part and synthetic is null and duration_ns is not null",
        {"step": step, "part": part},
    )
    return rows.to_pandas()


@pytest.mark.parametrize(
    ("fleet_of", "step", "part"),
    [
        ("none", "connect", None),
        ("hour", "SearchingForDigitalPerson", "queue"),
        ("release", "ConnectingToDigitalPerson", None),
    ],
)
def test_survival_equals_scipy(fleet_of: str, step: str, part: str | None) -> None:
    """The Kaplan-Meier curve and its interval are SciPy's, at every millisecond."""
    source, _ = planted(fleet_of)
    rows = durations(source, step, part)
    completed = rows["ended"] == "completed"
    estimate = ecdf(CensoredData(uncensored=rows.loc[completed, "ms"], right=rows.loc[~completed, "ms"])).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an interval is not defined where the curve is 1 or 0
        interval = estimate.confidence_interval(method="log-log")

    curve = answer("survival", source, step=step, part=part, resolution="1ms").set_index("after_ms")

    expected = pd.DataFrame(
        {"sf": estimate.probabilities, "low": interval.low.probabilities, "high": interval.high.probabilities},
        index=estimate.quantiles.astype(int),
    )
    both = curve.join(expected, how="inner")
    assert len(both) == len(curve) == len(expected)
    np.testing.assert_allclose(both["waiting_ratio"], both["sf"], atol=1e-9)
    known = both["waiting_low_ratio"].notna() & both["low"].notna() & (both["sf"] > 0) & (both["sf"] < 1)
    np.testing.assert_allclose(both.loc[known, "waiting_low_ratio"], both.loc[known, "low"], atol=1e-6)
    np.testing.assert_allclose(both.loc[known, "waiting_high_ratio"], both.loc[known, "high"], atol=1e-6)


@pytest.mark.parametrize("fleet_of", ["none", "hour"])
def test_step_durations_equal_statsmodels(fleet_of: str) -> None:
    """Percentiles of every step and part are quantiles of statsmodels' curve; the naive ones are of the completed."""
    source, _ = planted(fleet_of)
    percents = (50, 95, 99)
    for row in answer("step_durations", source, bucket="all", parts=True).to_dict("records"):
        rows = durations(source, row["step"], None if pd.isna(row["part"]) else row["part"])
        completed = rows["ended"] == "completed"
        curve = SurvfuncRight(rows["ms"], completed)
        # Where the curve is exactly at a percentile, ours is that time and statsmodels' the next: hence a little less.
        expected = [curve.quantile(percent / 100 - 1e-9) for percent in percents]
        found = np.array([row[f"p{percent}_ms"] for percent in percents], dtype=float)
        np.testing.assert_array_equal(found, expected)
        for percent in percents:
            naive = np.quantile(rows.loc[completed, "ms"], percent / 100, method="inverted_cdf")
            assert row[f"naive_p{percent}_ms"] == naive
        shares = rows["ended"].value_counts(normalize=True)
        for fate in ("completed", "failed", "timed_out", "cancelled"):
            assert row[f"{fate}_ratio"] == pytest.approx(shares.get(fate, 0.0))


@pytest.mark.parametrize(
    ("fleet_of", "step", "part"),
    [("hour", "SearchingForDigitalPerson", "queue"), ("none", "connect", None), ("release", "connect", None)],
)
def test_competing_risks_equal_statsmodels(fleet_of: str, step: str, part: str | None) -> None:
    """What becomes of those who begin, by Aalen and Johansen, is statsmodels' incidence, at every millisecond."""
    source, _ = planted(fleet_of)
    rows = durations(source, step, part)
    fates = ("completed", "failed", "cancelled")
    status = rows["ended"].map({fate: number for number, fate in enumerate(fates, 1)}).fillna(0).astype(int)
    once = np.ones(len(rows))  # with weights no standard errors are computed, which no report has
    incidence = CumIncidenceRight(rows["ms"], status, freq_weights=once)

    curve = answer("survival", source, step=step, part=part, resolution="1ms")

    assert set(rows["ended"]) > set(fates)
    np.testing.assert_array_equal(curve["after_ms"], incidence.times)
    for fate, expected in zip(fates, incidence.cinc, strict=True):
        np.testing.assert_allclose(curve[f"{fate}_ratio"], expected, atol=1e-9)


def test_deadline_what_if_by_hand() -> None:
    """Expected successes with a longer limit are the sum of each one's chance on SciPy's curve."""
    source, _ = planted("hour")
    rows = durations(source, "connect")
    timed_out = rows.loc[rows["ended"] == "timed_out", "ms"]
    limit_ms = 30_000
    completed = rows["ended"] == "completed"
    curve = ecdf(CensoredData(uncensored=rows.loc[completed, "ms"], right=rows.loc[~completed, "ms"])).sf
    before = timed_out[timed_out < limit_ms]
    chances = 1 - curve.evaluate(limit_ms) / curve.evaluate(before)

    (row,) = answer("deadline_what_if", source, step="connect", limit="30s").to_dict("records")

    assert row["timed_out_before_limit"] == len(before) > 0
    assert row["would_complete"] == pytest.approx(chances.sum())
    assert row["would_complete_low"] <= row["would_complete"] <= row["would_complete_high"] <= len(before)
    assert row["would_be_cut"] == (rows.loc[completed, "ms"] >= limit_ms).sum()


def test_concurrency_by_hand() -> None:
    """Open sessions are those whose time connected covers the moment, and the mean is their seconds over the hour's."""
    source, _ = planted("none")
    sessions = source.query(
        "select connected_ns, coalesce(disconnected_ns, last_seen_ns) as ended_ns from connections"
        " where connected_ns is not null and synthetic is null"
    ).to_pandas()
    hour = 3_600_000_000_000

    rows = answer("concurrency", source, bucket="1h", until=START_NS + 3 * fleet.DAY_NS, now=END_NS)

    assert len(rows) == 72
    for number in range(0, 72, 7):
        begin, end = START_NS + number * hour, START_NS + (number + 1) * hour
        row = rows.iloc[number]
        covered = sessions["ended_ns"].clip(begin, end) - sessions["connected_ns"].clip(begin, end)
        inside = sessions[(sessions["connected_ns"] < end) & (sessions["ended_ns"] > begin)]
        starts = inside.loc[inside["connected_ns"] >= begin, "connected_ns"]
        moments = np.append(starts, begin)
        peak = max(((inside["connected_ns"] <= at) & (inside["ended_ns"] > at)).sum() for at in moments)
        assert row["open_at_start"] == ((inside["connected_ns"] <= begin) & (inside["ended_ns"] > begin)).sum()
        assert row["mean"] == pytest.approx(covered.sum() / hour)
        assert row["peak"] == peak


def test_media_quality_by_hand() -> None:
    """Loss between samples, and the shares above the limits, are what pandas finds."""
    source, _ = planted("none")
    samples = source.query("select * from samples where synthetic is null order by trace_id, at_ns").to_pandas()
    by_trace = samples.groupby("trace_id")
    lost = by_trace["video_packets_lost"].diff().fillna(samples["video_packets_lost"])
    received = by_trace["video_packets_received"].diff().fillna(samples["video_packets_received"])

    (row,) = answer("media_quality", source, bucket="all", until=END_NS).to_dict("records")

    assert row["samples"] == len(samples)
    assert row["connections"] == samples["trace_id"].nunique()
    assert row["video_loss_ratio"] == pytest.approx(lost.sum() / (lost + received).sum())
    assert row["video_loss_poor_ratio"] == pytest.approx((lost > 0.01 * (lost + received)).mean())
    assert row["rtt_p95_ms"] == pytest.approx(samples["rtt_s"].quantile(0.95) * 1000)
    assert row["rtt_poor_ratio"] == pytest.approx((samples["rtt_s"] > 0.4).mean())


def test_disconnects_by_hand() -> None:
    """Reasons, lengths and the detection lag are what pandas finds, with losses dated back."""
    source, _ = planted("none")
    ends = source.query("select * from connections where disconnected_ns is not null and synthetic is null").to_pandas()
    lost = ends["disconnect_reason"] == "connectionLost"
    ended_ns = ends["disconnected_ns"] - np.where(lost, ends["media_last_seen_ago_ms"].fillna(0) * 1e6, 0)
    length_s = (np.maximum(ended_ns, ends["connected_ns"]) - ends["connected_ns"]) / 1e9
    keys = ["disconnect_reason", "ended_by", "disconnect_detail"]
    expected = length_s.groupby([ends[key].fillna("") for key in keys]).agg(["size", "median"])

    rows = answer("disconnects", source, until=START_NS + 30 * fleet.DAY_NS)

    assert rows["sessions"].sum() == len(ends)
    for row in rows.to_dict("records"):
        size, median = expected.loc[tuple("" if pd.isna(row[key]) else row[key] for key in keys)]
        assert (row["sessions"], row["length_p50_s"]) == (size, pytest.approx(median, rel=1e-6))


def found(name: str, **params: object) -> set[tuple[str, str]]:
    """What the cohorts report says stands out, and not because of one client."""
    source, _ = planted(name)
    rows = answer("cohorts", source, **params)
    chosen = rows[rows["stands_out"] & ~rows["is_one_client"].fillna(False)]
    return set(zip(chosen["dimension"].astype(str), chosen["value"].astype(str), strict=True))


def test_nothing_planted_nothing_found() -> None:
    """In a fleet where every cohort fails alike, no cohort stands out, not even among pairs."""
    assert found("none", pairs=True) == set()


def test_a_bad_release_is_found() -> None:
    """A version that fails in one region is found as that pair and as the region; all else found has a part of it."""
    version, region = fleet.VERSIONS[-1], fleet.REGIONS[0]

    everything = found("release", pairs=True, detail="ice_no_pair")

    assert ("region, client_version", f"{region}, {version}") in everything
    assert ("region", region) in everything
    for dimension, value in everything:
        assert dimension == "client" or version in value or region in value, (dimension, value)
    source, _ = planted("release")
    top = answer("cohorts", source, pairs=True, detail="ice_no_pair").iloc[0]
    assert (top["dimension"], top["value"]) == ("region, client_version", f"{region}, {version}")


def test_a_bad_release_is_a_change() -> None:
    """Before and after the release, only what it broke has changed."""
    source, _ = planted("release")
    middle = START_NS + int(3.5 * fleet.DAY_NS)

    rows = answer("changes", source, since=middle, until=START_NS + 7 * fleet.DAY_NS)

    changed = rows[rows["is_significant"]]
    assert set(changed["detail"]) == {"all", "ice_no_pair"}
    assert (changed["difference_low_ratio"] > 0).all()
    calm = answer("changes", planted("none")[0], since=middle, until=START_NS + 7 * fleet.DAY_NS)
    assert not calm["is_significant"].any()


def test_a_saturated_hour_is_found() -> None:
    """The hour with too few digital persons has the longest queue and most are sent away in it; no cohort is blamed."""
    source, _ = planted("hour")
    hour = pd.Timestamp(START_NS + int(2.5 * fleet.DAY_NS), tz="UTC")

    queue = answer("queue", source, bucket="1h").set_index("bucket")
    busy = queue[queue["asked"] >= 20]

    assert busy["queued_ratio"].idxmax() == hour
    assert busy["no_scene_ratio"].idxmax() == hour
    assert busy["gave_up"].idxmax() == hour
    assert answer("concurrency", source, bucket="1h").set_index("bucket")["no_scene"].idxmax() == hour
    assert found("hour", pairs=True) == set()


def test_a_heavy_client_is_found() -> None:
    """One client that fails half the time is named, and nothing that it belongs to is blamed for it."""
    source, _ = planted("client")

    assert {pair for pair in found("client", pairs=True) if pair[0] != "client"} == set()
    top = answer("cohorts", source).iloc[0]
    assert (top["dimension"], top["value"]) == ("client", "client-7")
    blamed = answer("cohorts", source)
    assert set(blamed.loc[blamed["is_one_client"].fillna(False), "top_client"]) == {"client-7"}
