"""The catalogue: headers, parameters, and what comes out; what the reports say is tested in `tests/queries/`."""

import inspect
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import reports
from telemetry.errors import BadParameter, ReportError, UnknownReport
from telemetry.store.duck import Store
from tests.support.source import MemorySource
from tests.support.spans import T0, attempt, table

S = 1_000_000_000
HOUR = 3600 * S
NOW = T0 + 3600 * S
HEADER = """-- What is asked?
--
-- params:  {params}
-- returns: one row
-- used by: a test
--
-- Says more.

{sql}
"""


def written(tmp_path: Path, params: str = "none", sql: str = "select 1 as one;") -> reports.Report:
    """A report as `catalogue()` would read it from a file."""
    file = tmp_path / "asked.sql"
    file.write_text(HEADER.format(params=params, sql=sql))
    return reports.read(file)


def test_header(tmp_path: Path) -> None:
    """A header gives the question, the parameters with types, defaults and choices, and the notes; lines may go on."""
    report = written(
        tmp_path,
        "since (timestamp = 24h), by (text = all | step),\n--          n (integer, required), part (text)",
        "select $since, $by, $n, $part;",
    )

    assert report.question == "What is asked?"
    assert (report.returns, report.used_by, report.notes) == ("one row", "a test", "Says more.")
    assert report.params == (
        reports.Param("since", "timestamp", "24h"),
        reports.Param("by", "text", "all", ("all", "step")),
        reports.Param("n", "integer", required=True),
        reports.Param("part", "text"),
    )


@pytest.mark.parametrize(
    ("params", "sql", "message"),
    [
        ("none", "select $region;", r"asked\.sql uses \$region, which its header does not declare"),
        ("region (text)", "select 1;", r"asked\.sql declares region, which its statement does not use"),
        ("region (string)", "select $region;", "cannot be read: 'region "),
        ("region text", "select $region;", "cannot be read: 'region text'"),
        ("none", "select 1; select 2;", "must hold one select statement"),
        ("none", "drop table spans;", "must hold one select statement"),
        ("none", "select from where;", "cannot be read"),
    ],
)
def test_bad_headers(tmp_path: Path, params: str, sql: str, message: str) -> None:
    """A header that does not match its statement, and a file that is no single question, fail when they are loaded."""
    with pytest.raises(ReportError, match=message):
        written(tmp_path, params, sql)


def test_a_header_names_what_shares_are_of() -> None:
    """The line `ratios:` maps each share to its count."""
    report = reports.parse(
        "asked", HEADER.format(params="none\n-- ratios:  a_ratio of n,\n--          b_ratio from m", sql="")
    )

    assert report.ratios == {"a_ratio": "n", "b_ratio": "m"}
    with pytest.raises(ReportError, match="has a ratio that cannot be read: 'a_ratio'"):
        reports.parse("asked", HEADER.format(params="none\n-- ratios:  a_ratio", sql=""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select 1", "must begin with a comment that asks its question"),
        ("-- Not a question.\n--\nselect 1", "ends in a question mark"),
        ("-- What?\n--\n-- params:  none\n-- returns: a row\nselect 1", "lacks its line `used by:`"),
    ],
)
def test_headers_that_lack_something(text: str, message: str) -> None:
    """A file without a question or without one of its three lines is refused."""
    with pytest.raises(ReportError, match=message):
        reports.parse("asked", text)


@pytest.mark.parametrize("name", reports.catalogue())
def test_every_report_answers_an_empty_store(name: str, store: Store) -> None:
    """Every report can be prepared against the store's own relations, and finds nothing in an empty one."""
    params = {param.name: "nothing" for param in reports.find(name).params if param.required}
    rows = reports.execute(name, params, store, now_ns=NOW).to_pylist()

    if name == "concurrency":
        assert {row["peak"] for row in rows} == {0}
    else:
        assert rows == []


@pytest.mark.parametrize("name", reports.catalogue())
def test_every_report_is_written_alike(name: str) -> None:
    """Every report orders its rows, explains its parameters, and stays within the portable subset of SQL."""
    report = reports.find(name)
    statement = "\n".join(line for line in report.sql.splitlines() if not line.startswith("--"))

    assert "order by" in statement
    assert report.returns
    assert report.notes
    for forbidden in ("approx_", "round(", "group by all", "median(", "date_diff", "interval", "strftime", "asof", "{"):
        assert forbidden not in statement, forbidden
    for line in report.sql.splitlines():
        assert len(line) <= 120, line


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An empty store."""
    with Store.open(tmp_path_factory.mktemp("reports") / "store.duckdb") as store:
        yield store


def bound(type: str, value: object, default: str = "") -> object:
    """What a parameter of the type takes from a value."""
    declared = f"x ({type}{f' = {default}' if default else ''})"
    report = reports.parse("asked", HEADER.format(params=declared, sql="select $x;"))
    return report.bind({"x": value}, NOW)["x"]


@pytest.mark.parametrize(
    ("type", "value", "expected"),
    [
        ("timestamp", "now", NOW),
        ("timestamp", "24h", NOW - 86_400 * S),
        ("timestamp", "1h30m", NOW - 5400 * S),
        ("timestamp", "2026-09-21T14:13:20Z", T0),
        ("timestamp", "2026-09-21T16:13:20+02:00", T0),
        ("timestamp", "2026-09-21 14:13:20", T0),
        ("timestamp", "2026-09-21", T0 - (14 * 3600 + 13 * 60 + 20) * S),
        ("timestamp", str(T0), T0),
        ("timestamp", T0 + 1, T0 + 1),
        ("timestamp", datetime(2026, 9, 21, 14, 13, 20), T0),
        ("timestamp", datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC), T0),
        ("timestamp", datetime(2026, 9, 21, 15, 13, 20, tzinfo=timezone(timedelta(hours=1))), T0),
        ("timestamp", pd.Timestamp(T0 + 7, tz="UTC"), T0 + 7),
        ("timestamp", pd.Timestamp(T0 + 7), T0 + 7),
        ("duration", "90s", 90 * S),
        ("duration", "0.5ms", 500_000),
        ("duration", "1d12h", 129_600 * S),
        ("duration", "all", 2**62),
        ("duration", timedelta(minutes=5), 300 * S),
        ("integer", "12", 12),
        ("integer", 0, 0),
        ("number", "0.25", 0.25),
        ("number", 2, 2.0),
        ("boolean", "true", True),
        ("boolean", False, False),
        ("boolean", "no", False),
        ("text", "eu-west-1", "eu-west-1"),
        ("text", None, None),
        ("text", "", None),
    ],
)
def test_values(type: str, value: object, expected: object) -> None:
    """Parameters take what a person types and what Python has, and reach SQL as nanoseconds, numbers and texts."""
    assert bound(type, value) == expected


@pytest.mark.parametrize(
    ("type", "value"),
    [
        *(("timestamp", bad) for bad in ("yesterday", "24", "-1h", "24 h", True, "1200y", "2026-13-01")),
        *(("duration", bad) for bad in ("", "10", "h", "0s", "-5m", "1h garbage", "999999999d")),
        *(("integer", bad) for bad in ("1.5", "one", 1.5, -1, True, str(2**70))),
        *(("number", bad) for bad in ("nan", "inf", "x", False)),
        *(("boolean", bad) for bad in ("maybe", "2", 3)),
        ("text", "x" * 1001),
    ],
)
def test_bad_values(type: str, value: object) -> None:
    """A value that is not of its type is refused, with what was expected."""
    with pytest.raises(BadParameter, match="parameter x of report asked") as refused:
        bound(type, value or "?")

    assert refused.value.name == "x"
    assert refused.value.expected == reports.EXPECTED[type]


@given(value=st.text(max_size=40))
def test_no_text_breaks_binding(value: str) -> None:
    """Whatever is typed is either taken or refused as a bad parameter."""
    for type in reports.EXPECTED:
        try:
            bound(type, value)
        except BadParameter:
            continue


def test_defaults_choices_and_requirements() -> None:
    """A default holds where nothing was given, a choice allows nothing else, and what is required must be given."""
    report = reports.parse(
        "asked", HEADER.format(params="by (text = all | step), id (text, required)", sql="select $by, $id;")
    )

    assert report.bind({"id": "a"}, NOW) == {"by": "all", "id": "a"}
    assert report.params[0].help == "What to tell apart. One of all, step. Default all."
    with pytest.raises(BadParameter, match="by of report asked cannot be 'day'; it should be one of all, step"):
        report.bind({"id": "a", "by": "day"}, NOW)
    with pytest.raises(BadParameter, match="id of report asked is missing"):
        report.bind({}, NOW)
    with pytest.raises(BadParameter, match="no parameter 'idd'; it takes by, id"):
        report.bind({"idd": "a"}, NOW)


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    """Since after until is a mistake; since equal to until is an empty range."""
    with pytest.raises(BadParameter, match="since of report recent is after until"):
        reports.find("recent").bind({"since": "1h", "until": "2h"}, NOW)

    assert reports.find("recent").bind({"since": "1h", "until": "1h"}, NOW)["since"] == NOW - 3600 * S


@pytest.mark.parametrize("name", ["failure_rate", "concurrency"])
def test_more_buckets_than_anybody_reads_are_refused(name: str) -> None:
    """A range of a hundred thousand buckets would be an answer of hundreds of megabytes; a month of minutes is none."""
    with pytest.raises(
        BadParameter, match=f"bucket of report {name} makes more than 100,000 of the range; it should be"
    ):
        reports.find(name).bind({"since": "30d", "bucket": "1s"}, NOW)

    assert reports.find(name).bind({"since": "31d", "bucket": "1m"}, NOW)["bucket"] == 60 * S


def test_unknown_reports_name_their_neighbours() -> None:
    """A misspelt name is answered with the nearest ones."""
    with pytest.raises(UnknownReport, match="did you mean failure_rate") as refused:
        reports.find("failurerate")

    assert refused.value.nearest[0] == "failure_rate"
    with pytest.raises(UnknownReport, match="`telemetry reports` lists them"):
        reports.find("xyzzy!")


def test_answers_are_presented_in_one_place() -> None:
    """Points in time lose `_ns` and become timestamps in UTC; sums of whole numbers stay whole."""

    class Fixed:
        def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
            return MemorySource().query("select 1::bigint as at_ns, sum(2::bigint) as total, 0.5::double as half")

    answer = reports.execute("recent", {}, Fixed(), now_ns=NOW)

    assert answer.schema == pa.schema(
        [("at", pa.timestamp("ns", "UTC")), ("total", pa.int64()), ("half", pa.float64())]
    )


def test_frames_have_proper_types(tmp_path: Path) -> None:
    """A DataFrame has zoned times, categories in the order of the steps, and whole numbers that may be missing."""
    with Store.open(tmp_path / "store.duckdb") as store:
        store.commit([table(attempt(1), attempt(2, outcome="failed"))])
        funnel = reports.run("funnel", store=store, since=T0, until=T0 + 60 * S)
        recent = reports.run("recent", store=store, since=T0, until=datetime(2026, 9, 22, tzinfo=UTC))
    from_file = reports.run("funnel", store=tmp_path / "store.duckdb", since=T0, until=timedelta_after(60))

    assert funnel["step"].cat.ordered
    assert list(funnel["step"]) == list(funnel["step"].cat.categories[1:])
    assert str(funnel["lost"].dtype) == "Int64"
    assert str(recent["start"].dtype) == "datetime64[ns, UTC]"
    assert str(recent["outcome"].dtype) == "category"
    assert recent["attempt_id"].tolist() == ["attempt-0001", "attempt-0002"]
    assert recent["connecting"].tolist() == [pd.Timedelta("1200ms"), pd.Timedelta("300ms")]
    assert recent["connected"].iloc[0] == pd.Timedelta("60s")
    pd.testing.assert_frame_equal(funnel, from_file)


@pytest.mark.parametrize("name", reports.catalogue())
def test_durations_keep_their_columns_apart(name: str, store: Store) -> None:
    """Without their units, the columns of a report still have names of their own, and no number is a time any more."""
    required = {param.name: "nothing" for param in reports.find(name).params if param.required}

    frame = reports.run(name, store=store, **required)

    assert frame.columns.is_unique
    assert not [column for column in frame.select_dtypes("number").columns if column.endswith(("_ms", "_s", "_ns"))]


@pytest.mark.parametrize("name", reports.catalogue())
def test_each_report_is_a_function(name: str, store: Store) -> None:
    """It answers as `run` does, and has the parameters, the choices and the documentation of its header."""
    report, function = reports.find(name), getattr(reports, name)
    signature = inspect.signature(function)
    asked: dict[str, Any] = {param.name: "nothing" for param in report.params if param.required}
    asked |= {param.name: at for param in report.params if (at := {"since": T0, "until": T0 + HOUR}.get(param.name))}

    pd.testing.assert_frame_equal(function(store=store, **asked), reports.run(name, store=store, **asked))
    assert list(signature.parameters) == [*(param.name for param in report.params), "store"]
    assert function.__doc__.startswith(report.question)
    assert name in dir(reports)
    assert name not in vars(reports)


def test_signatures_say_what_a_parameter_takes() -> None:
    """A notebook shows the types and defaults before anything is asked, and a wrong name lists the right ones."""
    shown = inspect.signature(reports.recent).parameters

    assert str(shown["since"]) == "since: datetime.datetime | str = '24h'"
    assert str(shown["limit"]) == "limit: int = 50"
    assert str(shown["synthetic"]) == "synthetic: bool = False"
    assert str(shown["region"]) == "region: str | None = None"
    assert "'reason'" in str(inspect.signature(reports.failure_rate).parameters["by"])
    with pytest.raises(AttributeError, match=r"'funel'; its reports are .*funnel"):
        reports.funel  # noqa: B018  # what a notebook does with a misspelt name


def timedelta_after(seconds: int) -> pd.Timestamp:
    """A pandas time some seconds after the attempts of `tests.support.spans` begin."""
    return pd.Timestamp(T0 + seconds * S, tz="UTC")


def test_parameters_travel_as_text() -> None:
    """Python values become texts that mean the same, so that a server can be asked."""
    texts = reports.as_texts(
        {"since": pd.Timestamp(T0 + 7, tz="UTC"), "bucket": timedelta(minutes=5), "n": 3, "synthetic": True, "no": None}
    )

    assert texts == {"since": str(T0 + 7), "bucket": "300000000000ns", "n": "3", "synthetic": "True"}
    assert bound("timestamp", texts["since"]) == T0 + 7
    assert bound("duration", texts["bucket"]) == 300 * S
    assert bound("boolean", texts["synthetic"]) is True
