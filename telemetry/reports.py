"""The catalogue of reports: read the files in `queries/`, check them, bind parameters, run them.

A report is one SQL file: a question, a header that declares its parameters, and a statement that answers it.
The same file answers the command line, the pages, the query API and pandas; nothing here or there builds SQL from text.
It knows nothing of where the rows are: a source is anything with `.query(sql, params) -> pyarrow.Table`.
"""

import difflib
import inspect
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import pyarrow as pa

from telemetry import settings
from telemetry.errors import BadParameter, ReportError, UnknownReport
from telemetry.semconv import State

if TYPE_CHECKING:
    import pandas as pd

    from telemetry.store.duck import Store

Type = Literal["timestamp", "duration", "integer", "number", "text", "boolean"]

EXPECTED: Final[Mapping[str, str]] = {
    "timestamp": "a relative time such as 24h or 7d, now, or an ISO 8601 time such as 2026-09-21T14:00Z",
    "duration": "a duration such as 500ms, 90s, 15m, 6h or 7d, or all",
    "integer": "a whole number from 0",
    "number": "a number",
    "text": "a text of at most 1000 characters",
    "boolean": "true or false",
}
"""What a value of each type must look like, in words for an error message."""

_PYTHON: Final[Mapping[str, object]] = {
    "timestamp": datetime | str,
    "duration": timedelta | str,
    "integer": int,
    "number": float,
    "text": str,
    "boolean": bool,
}

HELP: Final[Mapping[str, str]] = {
    "since": "Start of the time range.",
    "until": "End of the time range, itself not included.",
    "now": "The moment of asking: what is silent since long before is lost, not late.",
    "bucket": "Length of the time buckets; all makes one of the whole range.",
    "region": "Only this region.",
    "client_version": "Only this version of the client.",
    "runtime": "Only this runtime.",
    "network_type": "Only this type of network connection.",
    "server_address": "Only this server.",
    "environment": "Only this deployment environment.",
    "synthetic": "Count synthetic probes like people's attempts.",
    "limit": "The most rows to return.",
    "by": "What to tell apart.",
}
"""The parameters that mean the same in every report."""

_UNITS_NS: Final = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3_600 * 10**9,
    "d": 86_400 * 10**9,
    "w": 7 * 86_400 * 10**9,
}
_WORDS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_LONGEST_TEXT: Final = 1000
_MOST_BUCKETS: Final = 100_000
"""A month has 43,200 minutes. An answer is held in memory whole."""
_MOST_NS: Final = 2**62
"""Times and durations beyond 146 years from 1970 would overflow where a report adds two of them."""


class Source(Protocol):
    """What answers a statement: a store."""

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """Answer one statement."""
        ...


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a report, as its header declares it."""

    name: str
    type: Type
    default: str | None = None
    """As a user would write it. None means that the parameter is NULL unless given."""
    choices: tuple[str, ...] = ()
    """The only values allowed, the default first; none means any value of the type."""
    required: bool = False

    @property
    def help(self) -> str:
        """What it is for, its choices and its default."""
        text = HELP.get(self.name, "")
        if self.choices:
            text = f"{text} One of {', '.join(self.choices)}.".lstrip()
        if self.required:
            return f"{text} Required.".lstrip()
        return f"{text} Default {self.default}.".lstrip() if self.default is not None else text

    @property
    def signature(self) -> inspect.Parameter:
        """As an argument of a Python function, by keyword only."""
        annotation: Any = Literal[self.choices] if self.choices else _PYTHON[self.type]
        default: object = inspect.Parameter.empty if self.required else self.default
        if default is None:
            annotation = annotation | None
        elif self.type in ("integer", "number", "boolean"):
            default = _read(self.type, default, 0)
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)

    @property
    def expected(self) -> str:
        """What a value must look like."""
        return f"one of {', '.join(self.choices)}" if self.choices else EXPECTED[self.type]


@dataclass(frozen=True, slots=True)
class Report:
    """One file of `queries/`."""

    name: str
    question: str
    params: tuple[Param, ...]
    returns: str
    used_by: str
    notes: str
    """What the reader should know: what is counted, and what is not."""
    sql: str
    """The whole file, comments included."""
    ratios: Mapping[str, str]
    """Each share among the columns, with the column that it is a share of."""

    @property
    def documentation(self) -> str:
        """What a reader is told of it: its question, what comes out, and its notes."""
        return f"{self.question}\n\nReturns {self.returns}.\n\n{self.notes}"

    def bind(self, given: Mapping[str, object], now_ns: int) -> dict[str, object]:
        """Turn what a user wrote into what the statement takes: nanoseconds, numbers, texts.

        Args:
            given: values by parameter name, as text or as Python objects; None and the empty text mean "not given".
            now_ns: what relative times count back from.

        Raises:
            BadParameter: a name is unknown, a required value is missing, a value is not of its type, or there would be
                more buckets than anybody reads.
        """
        known = {param.name: param for param in self.params}
        for name in given:
            if name not in known:
                raise BadParameter(
                    f"report {self.name} has no parameter {name!r}; it takes {', '.join(known) or 'none'}",
                    name=name,
                    expected=", ".join(known),
                )
        bound = {name: self._value(param, given.get(name), now_ns) for name, param in known.items()}
        since, until, bucket = (bound.get(name) for name in ("since", "until", "bucket"))
        if isinstance(since, int) and isinstance(until, int):
            if since > until:
                raise self._bad(known["since"], "is after until", "a time before until")
            if isinstance(bucket, int) and (until - since) // bucket >= _MOST_BUCKETS:
                raise self._bad(known["bucket"], f"makes more than {_MOST_BUCKETS:,} of the range", "longer")
        return bound

    def _value(self, param: Param, given: object, now_ns: int) -> object:
        value = param.default if given is None or given == "" else given
        if value is None:
            if param.required:
                raise self._bad(param, "is missing", param.expected)
            return None
        try:
            read = _read(param.type, value, now_ns)
        except (ValueError, OverflowError) as error:
            raise self._bad(param, f"cannot be {_shown(value)}", param.expected) from error
        if param.choices and read not in param.choices:
            raise self._bad(param, f"cannot be {_shown(value)}", param.expected)
        return read

    def _bad(self, param: Param, problem: str, expected: str) -> BadParameter:
        message = f"parameter {param.name} of report {self.name} {problem}; it should be {expected}"
        return BadParameter(message, name=param.name, expected=expected)


def run(name: str, *, store: "Store | str | os.PathLike[str] | None" = None, **params: object) -> "pd.DataFrame":
    """Answer a report as a DataFrame: times with time zone, durations, low-cardinality texts as categories.

    A column of milliseconds or seconds, such as `p95_ms`, is a duration and loses its unit: `p95`.

    Args:
        store: an open Store, a store's file, the URL of a server, or None for the usual place:
            a running server is asked, else the file is opened.
        params: the report's parameters, as Python objects (datetime, timedelta, numbers) or as on the command line.

    Raises:
        UnknownReport: there is no report of that name.
        BadParameter: a parameter is unknown, missing or not of its type.
        StoreError, ServerError: the store cannot be asked.
    """
    from telemetry import source

    if isinstance(store, str | os.PathLike | None):
        with source.opened(store) as asked:
            return with_durations(to_pandas(asked.report(name, as_texts(params))))
    return with_durations(to_pandas(execute(name, params, store)))


def __getattr__(name: str) -> "Callable[..., pd.DataFrame]":
    """Each report as a function: `reports.funnel(since="24h")` is `reports.run("funnel", since="24h")`.

    Its signature and its documentation are those of the report.
    """
    if name.startswith("_") or name not in catalogue():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; its reports are {', '.join(catalogue())}")
    report = catalogue()[name]

    def function(*, store: "Store | str | os.PathLike[str] | None" = None, **params: object) -> "pd.DataFrame":
        return run(name, store=store, **params)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = report.documentation
    run_signature = inspect.signature(run)
    function.__signature__ = run_signature.replace(  # type: ignore[attr-defined]  # what `inspect.signature` reads
        parameters=[*(param.signature for param in report.params), run_signature.parameters["store"]]
    )
    return function


def __dir__() -> list[str]:
    return sorted([*globals(), *catalogue()])


def as_texts(params: Mapping[str, object]) -> dict[str, str]:
    """Parameters as the command line and the query API take them; what is None is left out."""
    return {name: _text(value) for name, value in params.items() if value is not None}


def _text(value: object) -> str:
    match value:
        case datetime():
            return str(_timestamp(value, 0))
        case timedelta():
            return f"{duration_ns(value)}ns"
        case _:
            return str(value)


def execute(name: str, params: Mapping[str, object], source: Source, *, now_ns: int | None = None) -> pa.Table:
    """Answer a report from a source; its points in time come out as timestamps in UTC.

    Raises:
        UnknownReport: there is no report of that name.
        BadParameter: a parameter is unknown, missing or not of its type.
        StoreError: the source cannot answer.
    """
    report = find(name)
    bound = report.bind(params, time.time_ns() if now_ns is None else now_ns)
    return presented(source.query(report.sql, bound))


def find(name: str) -> Report:
    """The report of that name.

    Raises:
        UnknownReport: there is none; the message has the nearest names.
    """
    reports = catalogue()
    if name in reports:
        return reports[name]
    nearest = tuple(difflib.get_close_matches(name, reports, n=3, cutoff=0.4))
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "`telemetry reports` lists them"
    raise UnknownReport(f"there is no report {name!r}; {hint}", name=name, nearest=nearest)


@cache
def catalogue() -> Mapping[str, Report]:
    """Every report by name, in alphabetical order.

    Raises:
        ReportError: a file's header does not match its statement.
    """
    files = sorted(settings.data_folder("queries").glob("*.sql"))
    return MappingProxyType({file.stem: read(file) for file in files})


def read(file: Path) -> Report:
    """Read one report.

    Raises:
        ReportError: the header is malformed, or declares other parameters than DuckDB finds in the statement.
    """
    report = parse(file.stem, file.read_text("utf-8"))
    declared = {param.name for param in report.params}
    found = _parameters(report)
    if undeclared := sorted(found - declared):
        raise ReportError(f"{file.name} uses ${', $'.join(undeclared)}, which its header does not declare")
    if unused := sorted(declared - found):
        raise ReportError(f"{file.name} declares {', '.join(unused)}, which its statement does not use")
    return report


_PARAM: Final = re.compile(
    r"(?P<name>[a-z]\w*) \((?P<type>timestamp|duration|integer|number|text|boolean)"
    r"(?: = (?P<default>[^(),]+))?(?P<required>, required)?\)"
)


def parse(name: str, sql: str) -> Report:
    """Take a report's text apart; the statement itself is not looked at.

    Raises:
        ReportError: the header is malformed; the message says how.
    """
    lines = []
    for line in sql.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line[2:].rstrip())
    question = lines[0].strip() if lines else ""
    if not question.endswith("?"):
        raise ReportError(f"{name}.sql must begin with a comment that asks its question and ends in a question mark")
    fields: dict[str, str] = {}
    notes: list[str] = []
    current = None
    for line in lines[1:]:
        if found := re.fullmatch(r" (params|returns|ratios|used by): +(.*)", line):
            current = found[1]
            fields[current] = found[2]
        elif current and re.match(r" {3,}\S", line):
            fields[current] += " " + line.strip()
        else:
            current = None
            notes.append(line.strip())
    if missing := {"params", "returns", "used by"} - set(fields):
        raise ReportError(f"the header of {name}.sql lacks its line `{sorted(missing)[0]}:`")
    params = _declared(name, fields["params"])
    ratios = _ratios(name, fields.get("ratios", ""))
    return Report(name, question, params, fields["returns"], fields["used by"], "\n".join(notes).strip(), sql, ratios)


def _ratios(name: str, text: str) -> dict[str, str]:
    """`failure_ratio of ended` is a share of a count; `waiting_ratio from waiting` is estimated from one."""
    ratios = {}
    for declaration in filter(None, text.split(", ")):
        found = re.fullmatch(r"(\w+_ratio) (?:of|from) (\w+)", declaration)
        if found is None:
            raise ReportError(f"the header of {name}.sql has a ratio that cannot be read: {declaration!r}")
        ratios[found[1]] = found[2]
    return ratios


def _declared(name: str, text: str) -> tuple[Param, ...]:
    if text == "none":
        return ()
    params = []
    for declaration in re.split(r"(?<=\)), ", text):
        found = _PARAM.fullmatch(declaration)
        if found is None:
            raise ReportError(f"the header of {name}.sql has a parameter that cannot be read: {declaration!r}")
        choices = tuple(choice.strip() for choice in (found["default"] or "").split("|")) if found["default"] else ()
        params.append(
            Param(
                name=found["name"],
                type=found["type"],  # type: ignore[arg-type]  # the pattern allows no other
                default=choices[0] if choices else None,
                choices=choices if len(choices) > 1 else (),
                required=bool(found["required"]),
            )
        )
    return tuple(params)


def _parameters(report: Report) -> set[str]:
    """The parameters of the statement, by DuckDB's own parser."""
    import duckdb

    try:
        statements = duckdb.extract_statements(report.sql)
    except duckdb.Error as error:
        raise ReportError(f"{report.name}.sql cannot be read: {error}") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ReportError(f"{report.name}.sql must hold one select statement")
    return set(statements[0].named_parameters)


def _read(type: Type, value: object, now_ns: int) -> object:
    """One value as its statement takes it.

    Raises:
        ValueError: it is not of that type.
    """
    match type:
        case "timestamp":
            return _within(_timestamp(value, now_ns))
        case "duration":
            return _within(duration_ns(value), at_least=1)
        case "integer":
            if isinstance(value, bool | float):
                raise ValueError(value)
            return _within(int(str(value)))
        case "number":
            if isinstance(value, bool):
                raise ValueError(value)
            number = float(str(value))
            if number - number != 0:  # not a number, or infinite
                raise ValueError(value)
            return number
        case "boolean":
            word = str(value).lower()
            if word not in _WORDS:
                raise ValueError(value)
            return _WORDS[word]
        case "text":
            text = str(value)
            if len(text) > _LONGEST_TEXT:
                raise ValueError("too long")
            return text


def _within(value: int, at_least: int = 0) -> int:
    if not at_least <= value <= _MOST_NS:
        raise ValueError(value)
    return value


def _timestamp(value: object, now_ns: int) -> int:
    if isinstance(value, datetime):
        exact = getattr(value, "value", None)  # pandas keeps nanoseconds
        return exact if isinstance(exact, int) else _datetime_ns(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).strip()
    if text == "now":
        return now_ns
    if re.fullmatch(r"\d{16,19}", text):
        return int(text)
    if re.fullmatch(r"(\d+(\.\d+)?(ns|us|ms|s|m|h|d|w))+", text):
        return now_ns - duration_ns(text)
    return _datetime_ns(datetime.fromisoformat(text))


def _datetime_ns(value: datetime) -> int:
    """Nanoseconds since 1970; a time without zone is UTC."""
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def duration_ns(value: object) -> int:
    """A length of time such as `90s` or `1h30m`, or a timedelta, in nanoseconds.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1) * 1000
    text = str(value).strip()
    if text == "all":
        return _MOST_NS
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d|w)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(text)
    return sum(round(float(number) * _UNITS_NS[unit]) for number, unit in parts)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def presented(table: pa.Table) -> pa.Table:
    """Give the answer of a statement the types that everyone sees, in this one place.

    A column that ends in `_ns` is a point in time (durations are `_ms` or `_s`) and loses the ending.
    Sums of whole numbers are whole numbers of 64 bits.
    """
    for index, field in enumerate(table.schema):
        column, name = table.column(index), field.name
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            column = column.cast(pa.int64())
        if name.endswith("_ns"):
            name, column = name.removesuffix("_ns"), column.cast(pa.int64()).cast(pa.timestamp("ns", "UTC"))
        table = table.set_column(index, name, column)
    return table


def to_pandas(table: pa.Table) -> "pd.DataFrame":
    """A report's rows as a DataFrame; a whole number that may be missing is `Int64`, never a float."""
    import pandas as pd

    frame: pd.DataFrame = table.to_pandas()
    for field in table.schema:
        missing = table.column(field.name).null_count > 0
        if pa.types.is_string(field.type) and not field.name.endswith("_id") and field.name != "message":
            ordered = field.name == "step"
            categories = [str(state) for state in State] if ordered else None
            values = frame[field.name]
            if categories is None or not set(values.dropna()) <= set(categories):
                frame[field.name] = values.astype("category")
            else:
                frame[field.name] = pd.Categorical(values, categories, ordered=True)
        elif missing and pa.types.is_integer(field.type):
            frame[field.name] = table.column(field.name).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        elif missing and pa.types.is_boolean(field.type):
            frame[field.name] = table.column(field.name).to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)
    return frame


def with_durations(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Turn milliseconds and seconds into durations, whose columns need no unit in their names."""
    import pandas as pd

    for name in frame.select_dtypes("number").columns:
        stem, _, unit = name.rpartition("_")
        if unit in ("ms", "s"):
            frame[name] = pd.to_timedelta((frame[name].astype("float64") * _UNITS_NS[unit]).round())
            frame = frame.rename(columns={name: stem})
    return frame
