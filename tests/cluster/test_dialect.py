"""What ClickHouse would answer otherwise is refused by name."""

import pytest

from telemetry import reports
from telemetry.cluster.dialect import check, translated
from telemetry.errors import ReportError


@pytest.mark.parametrize(
    ("sql", "construct"),
    [
        ("select round(x) from t", "round"),
        ("select median(x) from t", "median"),
        ("select approx_quantile(x, 0.5) from t", "approx_quantile"),
        ("select approx_count_distinct(x) from t", "approx_count_distinct"),
        ("select strftime(x, '%d') from t", "strftime"),
        ("select date_diff('day', a, b) from t", "date_diff"),
        ("select x + interval 1 day from t", "interval"),
        ("select string_agg(x, ',' order by x) from t", "string_agg"),
        ("select a, count(*) from t group by all", "group by all"),
        ("select * from t asof join u on t.id = u.id and t.at >= u.at", "asof"),
        ("select a from t where a not in (select b from u)", "not in"),
        ("select unnest(generate_series(1, 3)) as n", "generate_series"),
        ("select cast(a / b as bigint) from t", "floor"),
        ("select epoch_ms(x) from t", "epoch_ms"),
        ("select split_part(a, b, 1) from t", "split_part"),
    ],
)
def test_what_is_not_portable_is_refused(sql: str, construct: str) -> None:
    """The error names the file and the construct."""
    with pytest.raises(ReportError, match=rf"mine\.sql.*{construct}"):
        check(sql, "mine.sql")


def test_every_report_is_portable() -> None:
    """None of the catalogue is refused."""
    for name, report in reports.catalogue().items():
        check(report.sql, name)


def test_a_parameter_travels_beside_the_statement() -> None:
    """Values are bound, never written into SQL; null is a word that fits every type."""
    sql = translated("select a from t where a = $a and b = $b", "mine.sql", (("a", "String"), ("b", "NULL")))

    assert sql == "SELECT a FROM t WHERE a = {a: String} AND b = NULL"


@pytest.mark.parametrize(
    ("sql", "given", "answered"),
    [
        ("select a from t where b = 1 and ($x is null or a = $x)", "String", "b = 1 AND (a = {x: String})"),
        ("select a from t where b = 1 and ($x is null or a = $x)", "NULL", "b = 1"),
        ("select a from t where b = 1 or ($x is null and a = 2)", "String", "b = 1"),
        ("select a from t where b = 1 or ($x is null and a = 2)", "NULL", "b = 1 OR (a = 2)"),
    ],
)
def test_whether_a_parameter_is_given_is_known(sql: str, given: str, answered: str) -> None:
    """What is left is a condition that an index and a partition can be found by."""
    assert translated(sql, "mine.sql", (("x", given),)) == f"SELECT a FROM t WHERE {answered}"
