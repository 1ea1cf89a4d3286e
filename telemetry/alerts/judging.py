"""Alert rules: hold the answers of reports against limits, and say what fired and why.

Rules are a TOML file. Each names a report, its parameters, a column, and the limit that every row must keep:

    [[rules]]
    name = "too many attempts fail"
    report = "failure_rate"
    params = { since = "1h", bucket = "all" }
    column = "service_failure_ratio"
    above = 0.05
    least = 50

A rule fires on a row whose value is beyond the limit; a share (`x_ratio`) fires only when its whole 95 % interval is:
the report's own (`x_low_ratio`, `x_high_ratio`), else Wilson's.
Rows with fewer than `least` in the column `count` are too few to tell; a share is counted by what it is a share of.
With `needs_data`, no row at all fires too.
`labels` go with what fires, to wherever it is told: `labels = { severity = "page" }`.
It knows no store: it is given a function that answers reports.
"""

import math
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from telemetry import reports
from telemetry.errors import ExitCode, ReportError, UsageError

Ask = Callable[[str, Mapping[str, str]], pa.Table]
"""Answers a report: `telemetry.source.Source.report`."""


class Status(StrEnum):
    """What became of a rule, or of a row under it."""

    OK = "ok"
    FIRING = "firing"
    TOO_FEW = "too_few"
    """The count is below the rule's least: the row says nothing."""
    NO_DATA = "no_data"
    """No row, or no value in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One limit on one column of a report."""

    name: str
    report: str
    column: str
    above: float | None = None
    """Fires above this limit; None means that there is none."""
    below: float | None = None
    params: dict[str, str] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)
    """Values that a row must have in other columns to be looked at."""
    count: str | None = None
    """The column that holds how many the value is of. None means what the report says a share is of."""
    least: int = 1
    needs_data: bool = False
    """Fire when no row can be judged."""
    labels: dict[str, str] = field(default_factory=dict)
    """What to tell along with it: who is to be woken."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule says of one row; of the report as a whole when there was none."""

    rule: str
    status: Status
    why: str
    report: str
    column: str
    value: float | None = None
    row: dict[str, Any] = field(default_factory=dict)
    """The texts and times of the row: which step, which bucket."""
    labels: dict[str, str] = field(default_factory=dict)
    """What tells the row from others and stays when it is asked again: the texts before the report's first figure."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "name": (str,),
    "report": (str,),
    "column": (str,),
    "above": (int, float),
    "below": (int, float),
    "params": (dict,),
    "where": (dict,),
    "count": (str,),
    "least": (int,),
    "needs_data": (bool,),
    "labels": (dict,),
}


def read_rules(path: str | os.PathLike[str]) -> tuple[Rule, ...]:
    """Read the rules of a file.

    Raises:
        UsageError: the file cannot be read, or a rule in it cannot be understood, or asks for a report, or with a
            parameter, that does not exist; names the rule.
    """
    given = read_file(path).get("rules")
    if not isinstance(given, list) or not given:
        raise UsageError(f"{path} has no [[rules]]")
    rules = tuple(_rule(f"{path}, rule {number}", one) for number, one in enumerate(given, 1))
    names = [rule.name for rule in rules]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{path} has more than one rule named {', '.join(map(repr, twice))}")
    return rules


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of rules and of webhooks to tell.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    try:
        given = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the rules in {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML file: {error}") from error
    if unknown := sorted(given.keys() - {"rules", "webhooks"}):
        raise UsageError(f"{path} has {', '.join(unknown)}; it may hold [[rules]] and [[webhooks]]")
    return given


def _rule(where: str, given: Any) -> Rule:
    if not isinstance(given, dict):
        raise UsageError(f"{where} is not a table")
    for name, value in given.items():
        if name not in _KINDS:
            raise UsageError(f"{where} has an unknown key {name!r}; there are {', '.join(_KINDS)}")
        if not isinstance(value, _KINDS[name]) or (isinstance(value, bool) and bool not in _KINDS[name]):
            raise UsageError(f"{where}: {name} cannot be {value!r}")
    if missing := {"name", "report", "column"} - given.keys():
        raise UsageError(f"{where} lacks {', '.join(sorted(missing))}")
    if not {"above", "below"} & given.keys():
        raise UsageError(f"{where} ({given['name']}) has no limit; give `above` or `below`")
    texts = {name: reports.as_texts(given.get(name, {})) for name in ("params", "labels")}
    rule = Rule(**{**given, **texts})
    try:
        reports.find(rule.report).bind(rule.params, now_ns=2**62)  # later than any time in a rule
    except ReportError as error:
        raise UsageError(f"{where} ({rule.name}): {error.message}") from error
    return rule


def check(rules: Iterable[Rule], ask: Ask) -> list[Finding]:
    """Hold every rule against the answers of its report.

    Raises:
        UsageError: a rule names a column that its report does not have.
        TelemetryError: a report could not be answered.
    """
    return [finding for rule in rules for finding in judge(rule, ask(rule.report, rule.params))]


def judge(rule: Rule, table: pa.Table) -> list[Finding]:
    """Hold one rule against an answer; one finding a row, the worst first.

    Raises:
        UsageError: the rule names a column that the answer does not have.
    """
    for column in (rule.column, *([rule.count] if rule.count else []), *rule.where):
        if column not in table.column_names:
            raise UsageError(f"rule {rule.name!r}: report {rule.report} has no column {column!r}")
    for column in (rule.column, *([rule.count] if rule.count else [])):
        type = table.schema.field(column).type
        if not _is_figure(type) and not pa.types.is_null(type):
            raise UsageError(f"rule {rule.name!r}: column {column!r} of report {rule.report} holds no numbers")
    of = reports.find(rule.report).ratios.get(rule.column)
    if rule.count is None and of in table.column_names:
        rule = replace(rule, count=of)
    rows = [row for row in table.to_pylist() if all(row[name] == value for name, value in rule.where.items())]
    names = _telling(table.schema)
    findings = [replace(_judge_row(rule, row), labels={name: row[name] or "" for name in names}) for row in rows]
    if rule.needs_data and not any(finding.status in (Status.OK, Status.FIRING) for finding in findings):
        reason = f"{rule.report} has no row that can be judged, and the rule needs one"
        return [Finding(rule.name, Status.FIRING, reason, rule.report, rule.column)]
    if not findings:
        return [Finding(rule.name, Status.NO_DATA, f"{rule.report} has no such row", rule.report, rule.column)]
    return sorted(findings, key=lambda finding: list(_WORST_FIRST).index(finding.status))


def _telling(schema: pa.Schema) -> list[str]:
    """The columns of text before the first figure."""
    keys = takewhile(lambda field: not _is_figure(field.type), schema)
    return [field.name for field in keys if pa.types.is_string(field.type)]


def _is_figure(type: pa.DataType) -> bool:
    return bool(pa.types.is_floating(type) or pa.types.is_integer(type) or pa.types.is_decimal(type))


_WORST_FIRST: Final = (Status.FIRING, Status.OK, Status.TOO_FEW, Status.NO_DATA)


def _judge_row(rule: Rule, row: Mapping[str, Any]) -> Finding:
    told = {
        name: written(value) if isinstance(value, datetime) else str(value)
        for name, value in row.items()
        if _is_label(value)
    }
    value = row[rule.column]
    if value is None:
        return Finding(rule.name, Status.NO_DATA, f"{rule.column} is not known", rule.report, rule.column, None, told)
    count = row[rule.count] if rule.count else None
    if rule.count and (count or 0) < rule.least:
        why = f"{rule.count} is {count or 0}, and below {rule.least} nothing can be told"
        return Finding(rule.name, Status.TOO_FEW, why, rule.report, rule.column, value, told)
    status, why = _beyond(rule, row, value)
    if rule.count:
        why += f", {rule.count} = {count}"
    return Finding(rule.name, status, why, rule.report, rule.column, value, told)


def _beyond(rule: Rule, row: Mapping[str, Any], value: float) -> tuple[Status, str]:
    low, high = _interval(rule, row, value)
    interval = f" (95 % between {low:.4g} and {high:.4g})" if (low, high) != (value, value) else ""
    what = f"{rule.column} is {value:.6g}{interval}"
    if rule.above is not None and low > rule.above:
        return Status.FIRING, f"{what}, above {rule.above:g}"
    if rule.below is not None and high < rule.below:
        return Status.FIRING, f"{what}, below {rule.below:g}"
    sides = [f"above {rule.above:g}"] if rule.above is not None else []
    sides += [f"below {rule.below:g}"] if rule.below is not None else []
    beyond = (rule.above is not None and value > rule.above) or (rule.below is not None and value < rule.below)
    return Status.OK, f"{what}, not {'surely ' if beyond else ''}{' or '.join(sides)}"


def _interval(rule: Rule, row: Mapping[str, Any], value: float) -> tuple[float, float]:
    """The report's interval; Wilson's for a share that it counts (z = 1.96); else the value alone."""
    low, high = (row.get(f"{rule.column.removesuffix('_ratio')}_{side}_ratio") for side in ("low", "high"))
    if low is not None and high is not None:
        return low, high
    count = row[rule.count] if rule.count else None
    if not count or not rule.column.endswith("_ratio") or not 0 <= value <= 1:
        return value, value
    middle, spread = value + 1.9207294 / count, 1.959964 * math.sqrt((value * (1 - value) + 0.9603647 / count) / count)
    return max(0.0, (middle - spread) / (1 + 3.8414588 / count)), min(1.0, (middle + spread) / (1 + 3.8414588 / count))


def _is_label(value: object) -> bool:
    return value is not None and not isinstance(value, bool | int | float)


def written(moment: datetime) -> str:
    """A time in UTC as findings and alerts have it, to the millisecond."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """3 when anything fires, else 0."""
    fired = any(finding.status is Status.FIRING for finding in findings)
    return ExitCode.CONNECTION_FAILED if fired else ExitCode.OK


def as_text(findings: Sequence[Finding]) -> str:
    """One line a finding, those that fire first: for a person, a mail, a log."""
    lines = []
    for finding in sorted(findings, key=lambda finding: finding.status is not Status.FIRING):
        place = f" [{', '.join(finding.row.values())}]" if finding.row else ""
        lines.append(f"{finding.status.upper():<8} {finding.rule}{place}: {finding.why}")
    return "\n".join(lines)
