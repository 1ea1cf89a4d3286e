"""Alert rules: when they fire, when they do not, and how a bad file is refused."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from telemetry import reports
from telemetry.alerts import judging
from telemetry.alerts.judging import Rule, Status, judge
from telemetry.errors import ExitCode, UsageError
from telemetry.simulator import fleet
from tests.support.source import MemorySource
from tests.support.spans import T0, attempt, table

GOOD = """
[[rules]]
name = "too many attempts fail"
report = "failure_rate"
params = { since = "1h", bucket = "all", synthetic = true }
where = { value = "all" }
column = "failure_ratio"
above = 0.1
count = "ended"
least = 5
"""


def rule(**changes: Any) -> Rule:
    """The rule of the file above, changed."""
    return Rule(**{"name": "r", "report": "failure_rate", "column": "failure_ratio", "above": 0.1, **changes})


def rows(*values: dict[str, Any]) -> pa.Table:
    """An answer."""
    return pa.Table.from_pylist(list(values))


def test_rules_are_read(tmp_path: Path) -> None:
    """A file of rules becomes rules, with parameters as the reports take them."""
    file = tmp_path / "rules.toml"
    file.write_text(GOOD)

    assert judging.read_rules(file) == (
        Rule(
            name="too many attempts fail",
            report="failure_rate",
            params={"since": "1h", "bucket": "all", "synthetic": "True"},
            where={"value": "all"},
            column="failure_ratio",
            above=0.1,
            count="ended",
            least=5,
        ),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules = 3", r"has no \[\[rules\]\]"),
        ("", r"has no \[\[rules\]\]"),
        ("rules = [3]", "rule 1 is not a table"),
        ("a = ", "is no TOML file"),
        (GOOD.replace("above", "abov"), "rule 1 has an unknown key 'abov'"),
        (GOOD.replace("above = 0.1", ""), "has no limit"),
        (GOOD.replace("0.1", "true"), "above cannot be True"),
        (GOOD.replace("0.1", "'much'"), "above cannot be 'much'"),
        (GOOD.replace('column = "failure_ratio"', ""), "lacks column"),
        (GOOD.replace('"failure_rate"', '"failurerate"'), r"rule 1 \(too many .* mean failure_rate"),
        (GOOD.replace('"1h"', '"an hour"'), r"rule 1 \(too many .* since"),
        (GOOD.replace("bucket", "buckets"), r"rule 1 \(too many .* 'buckets'"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """What cannot be understood is refused before anything is checked, and the message says where."""
    file = tmp_path / "rules.toml"
    file.write_text(text)

    with pytest.raises(UsageError, match=message):
        judging.read_rules(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is a usage error."""
    with pytest.raises(UsageError, match="cannot read the rules"):
        judging.read_rules(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("row", "changes", "status", "why"),
    [
        ({"failure_ratio": 0.2}, {}, Status.FIRING, "failure_ratio is 0.2, above 0.1"),
        ({"failure_ratio": 0.1}, {}, Status.OK, "failure_ratio is 0.1, not above 0.1"),
        ({"failure_ratio": 0.05}, {"above": None, "below": 0.06}, Status.FIRING, "is 0.05, below 0.06"),
        ({"failure_ratio": 0.5}, {"below": 0.06, "above": 0.6}, Status.OK, "not above 0.6 or below 0.06"),
        (
            {"failure_ratio": 0.2, "failure_low_ratio": 0.15, "failure_high_ratio": 0.3},
            {},
            Status.FIRING,
            "failure_ratio is 0.2 (95 % between 0.15 and 0.3), above 0.1",
        ),
        (
            {"failure_ratio": 0.2, "failure_low_ratio": 0.05, "failure_high_ratio": 0.5},
            {},
            Status.OK,
            "not surely above 0.1",
        ),
        (
            {"failure_ratio": 0.05, "failure_low_ratio": 0.01, "failure_high_ratio": 0.2},
            {"above": None, "below": 0.1},
            Status.OK,
            "not surely below 0.1",
        ),
        ({"failure_ratio": 0.2, "ended": 4}, {"count": "ended", "least": 5}, Status.TOO_FEW, "ended is 4, and below 5"),
        ({"failure_ratio": 0.9, "ended": 5}, {"count": "ended", "least": 5}, Status.FIRING, "above 0.1, ended = 5"),
        ({"failure_ratio": None}, {}, Status.NO_DATA, "failure_ratio is not known"),
    ],
)
def test_rows(row: dict[str, Any], changes: dict[str, Any], status: Status, why: str) -> None:
    """A row fires when its value, and its interval where there is one, is beyond the limit and counts enough."""
    (finding,) = judge(rule(**changes), rows(row))

    assert finding.status is status
    assert why in finding.why


@pytest.mark.parametrize(
    ("failed", "ended", "status"), [(6, 50, Status.OK), (60, 500, Status.OK), (90, 500, Status.FIRING)]
)
def test_a_share_without_an_interval_gets_one(failed: int, ended: int, status: Status) -> None:
    """A share is judged by Wilson's interval over what its report says it is of."""
    row = {"service_failure_ratio": failed / ended, "service_ended": ended}

    (finding,) = judge(rule(column="service_failure_ratio"), rows(row))

    assert finding.status is status
    assert finding.why.endswith(f"service_ended = {ended}")
    assert "95 % between" in finding.why


def test_the_interval_of_a_share_is_the_reports() -> None:
    """The interval made here is the one that the reports make in SQL."""
    source = MemorySource(table(*(attempt(n, outcome="failed" if n < 4 else "connected") for n in range(1, 21))))
    answer = reports.execute("failure_rate", {"since": T0, "bucket": "all"}, source, now_ns=T0 + 3600 * 10**9)

    (own,), (made,) = (
        judge(rule(params={}), table) for table in (answer, answer.drop(["failure_low_ratio", "failure_high_ratio"]))
    )

    assert own.why == made.why
    assert "95 % between" in own.why


def test_every_row_is_judged_the_worst_first() -> None:
    """Each row has its own finding that names it; rows that `where` leaves out have none."""
    table = rows(
        {"step": "a", "failure_ratio": 0.0, "kind": 1},
        {"step": "b", "failure_ratio": 0.9, "kind": 1},
        {"step": "c", "failure_ratio": 0.9, "kind": 2},
    )

    found = judge(rule(where={"kind": 1}), table)

    assert [(one.status, one.row) for one in found] == [(Status.FIRING, {"step": "b"}), (Status.OK, {"step": "a"})]
    assert judging.as_text(found).splitlines() == [
        "FIRING   r [b]: failure_ratio is 0.9, above 0.1",
        "OK       r [a]: failure_ratio is 0, not above 0.1",
    ]
    assert judging.exit_code(found) is ExitCode.CONNECTION_FAILED
    assert judging.exit_code(found[1:]) is ExitCode.OK


def test_missing_data() -> None:
    """No row is no alarm, unless the rule needs data; too few to judge is no data either."""
    nothing = rows({"failure_ratio": 0.5, "ended": 1}).slice(0, 0)
    few = rows({"failure_ratio": 0.5, "ended": 1})
    needing = rule(needs_data=True, count="ended", least=5)

    assert judge(rule(), nothing)[0].status is Status.NO_DATA
    assert judge(needing, nothing)[0].status is Status.FIRING
    assert judge(needing, few)[0].status is Status.FIRING


def test_a_column_that_is_not_there() -> None:
    """A rule on a column that the report does not have is a usage error, not silence."""
    with pytest.raises(UsageError, match="rule 'r': report failure_rate has no column 'ratio'"):
        judge(rule(column="ratio"), rows({"failure_ratio": 0.5}))


def test_the_rules_to_start_from() -> None:
    """The rules that come with the package are understood, and on a fleet where nothing was planted none fires."""
    rules = judging.read_rules(Path(judging.__file__).with_name("alerts.toml"))
    source = MemorySource(*fleet.generate(2000, days=1.0, sample_every_s=0))
    now_ns = fleet.START_NS + 15 * 3600 * 10**9

    found = judging.check(rules, lambda name, params: reports.execute(name, params, source, now_ns=now_ns))

    assert {one.rule for one in found} == {rule.name for rule in rules}
    assert {one.rule for one in found if one.status is Status.FIRING} == {"no telemetry arrives"}  # no receiver here


def test_rules_ask_reports() -> None:
    """The rules of a file are answered by the reports themselves."""
    source = MemorySource(table(*(attempt(n, outcome="failed") for n in range(1, 21)), attempt(30)))
    asked = [
        rule(params={"since": "2h", "bucket": "all"}, count="ended", least=20),
        rule(report="funnel", column="attempts", above=None, below=1, params={"since": "2h"}),
        rule(report="step_durations", column="p95_ms", above=10, params={"since": "2h", "bucket": "all"}),
    ]

    found = judging.check(
        asked, lambda name, params: reports.execute(name, params, source, now_ns=T0 + 3600 * 1_000_000_000)
    )

    assert found[0].status is Status.FIRING
    assert found[0].to_dict()["value"] == pytest.approx(20 / 21)
    assert {one.status for one in found if one.report == "funnel"} == {Status.OK}
    assert Status.FIRING in {one.status for one in found if one.report == "step_durations"}
