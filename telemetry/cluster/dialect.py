"""The statements of `queries/` in ClickHouse's SQL: SQLGlot translates, and what it would get wrong is put right here.

What cannot be had with equal answers is refused, with the name of the construct: a number is right or absent.
The settings of `telemetry.cluster.source` belong to it, for some rules of SQL are settings in ClickHouse.
"""

from collections.abc import Mapping
from functools import cache
from typing import Final

import sqlglot
from sqlglot import exp

from telemetry.errors import ReportError

REFUSED: Final[dict[type[exp.Expr], str]] = {
    exp.Round: "round(): halves go to even numbers in ClickHouse",
    exp.ApproxDistinct: "approx_count_distinct(): the estimates differ",
    exp.ApproxQuantile: "approx_quantile(): the estimates differ",
    exp.Median: "median(): use quantile_cont(x, 0.5)",
    exp.TimeToStr: "strftime(): the formats differ",
    exp.StrToTime: "strptime(): the formats differ",
    exp.UnixToTime: "epoch_ms(): use differences of nanoseconds",
    exp.DateDiff: "date_diff(): use differences of nanoseconds",
    exp.Interval: "interval: use nanoseconds",
    exp.JSONExtract: "a JSON operator: use a typed column",
    exp.JSONExtractScalar: "a JSON operator: use a typed column",
    exp.GroupConcat: "string_agg(): its order differs",
    exp.TableSample: "a sample: its rows differ",
    exp.Pivot: "pivot: use filters",
}
"""What is not portable, and why."""
_REFUSED_NAMES: Final = {
    "epoch_ms": "epoch_ms(): use differences of nanoseconds",
    "strftime": "strftime(): the formats differ",
    "string_agg": "string_agg(): its order differs",
    "list": "list(): its order differs",
    "mode": "mode(): which of equals is taken differs",
    "random": "random(): no two answers are equal",
}
_SIMPLE_AGGREGATES: Final = (
    exp.Sum,
    exp.Avg,
    exp.Min,
    exp.Max,
    exp.LogicalOr,
    exp.LogicalAnd,
    exp.Stddev,
    exp.Variance,
)
_TRUTHS: Final = (exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is, exp.In)
_TYPES: Final = {int: "Int64", float: "Float64", bool: "Bool", str: "String"}


@cache
def translated(sql: str, name: str, types: tuple[tuple[str, str], ...]) -> str:
    """A statement of DuckDB in ClickHouse's SQL.

    Args:
        name: the file, for the error.
        types: of each parameter, by `type_of`; parameters become `{name:Type}`.

    Raises:
        ReportError: a construct is outside the portable subset, or cannot be read.
    """
    tree = check(sql, name)
    known = dict(types)
    for node in reversed(list(tree.bfs())):  # what is inside comes first
        replacement = _bound(node, known) if isinstance(node, exp.Parameter | exp.Placeholder) else _rewritten(node)
        if replacement is not node:
            node.replace(replacement)
    try:
        return tree.sql(
            dialect="clickhouse",
            unsupported_level=sqlglot.ErrorLevel.RAISE,
            normalize_functions=False,
            comments=False,
        )
    except sqlglot.UnsupportedError as error:
        raise ReportError(f"{name} is not portable to ClickHouse: {error}") from error


def check(sql: str, name: str) -> exp.Expr:
    """The statement as a tree.

    Raises:
        ReportError: a construct is outside the portable subset, or cannot be read.
    """
    try:
        tree = sqlglot.parse_one(sql, read="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise ReportError(f"{name} cannot be read for ClickHouse: {error}") from error
    _refuse(tree, name)
    return tree


def type_of(value: object) -> str:
    """The type of a parameter's value, as ClickHouse writes it; `NULL` for None, which has none."""
    if isinstance(value, list | tuple):
        return f"Array({_TYPES[type(value[0])] if value else 'String'})"
    return "NULL" if value is None else _TYPES[type(value)]


def _bound(parameter: exp.Expr, types: Mapping[str, str]) -> exp.Expr:
    """A parameter as ClickHouse writes it; one that is null is the word itself, which fits every type."""
    kind = types.get(parameter.name, "NULL")
    if kind == "NULL":
        return exp.null()
    return exp.Placeholder(this=parameter.name, kind=exp.Var(this=kind))


def _refuse(tree: exp.Expr, name: str) -> None:
    """Raises ReportError for the first construct that has no equal in ClickHouse."""
    for node in tree.walk():
        reason = REFUSED.get(type(node))
        if isinstance(node, exp.GenerateSeries) and not node.args.get("is_end_exclusive"):
            reason = "generate_series(): use range()"
        if isinstance(node, exp.Anonymous):
            reason = _REFUSED_NAMES.get(node.name.lower())
        elif isinstance(node, exp.Group) and node.args.get("all"):
            reason = "group by all: name the columns"
        elif isinstance(node, exp.Join) and str(node.args.get("method") or "").upper() in ("ASOF", "POSITIONAL"):
            reason = f"{node.args['method'].lower()} join: use arg_max with a filter"
        elif isinstance(node, exp.WindowSpec) and node.args.get("kind") == "RANGE" and _has_bound(node):
            reason = "a window over a range of values: use rows"
        elif isinstance(node, exp.Cast) and node.to.is_type(*exp.DataType.INTEGER_TYPES) and _is_division(node.this):
            reason = "a cast of a fraction to a whole number: use floor()"
        elif isinstance(node, exp.Not) and isinstance(node.this, exp.In) and node.this.args.get("query"):
            reason = "not in (select …): use not exists or a join"
        if reason:
            raise ReportError(f"{name} is not portable to ClickHouse: {reason}")


def _has_bound(window: exp.WindowSpec) -> bool:
    return any(isinstance(window.args.get(side), exp.Expr) for side in ("start", "end"))


def _is_division(node: exp.Expr) -> bool:
    return isinstance(node.unnest(), exp.Div)


def _rewritten(node: exp.Expr) -> exp.Expr:
    """One node as ClickHouse needs it."""
    if isinstance(node, exp.Condition) and isinstance(node, _TRUTHS) and _is_value(node):
        return exp.Cast(this=node.copy(), to=exp.DataType.build("Nullable(Bool)", dialect="clickhouse"))
    match node:
        case exp.IntDiv():
            return exp.Anonymous(this="intDiv", expressions=[node.this, node.expression])
        case exp.Div():
            return exp.Anonymous(this="divide", expressions=[_double(node.this), _double(node.expression)])
        case exp.PercentileCont() if not isinstance(node.parent, exp.Filter):
            return _quantile(node.this, node.expression)
        case exp.Quantile() if not isinstance(node.parent, exp.Filter):
            return _quantile(node.this, node.args["quantile"])
        case exp.Filter():
            return _filtered(node)
        case exp.GenerateSeries():
            ends = [node.args["start"], node.args["end"], node.args.get("step")]
            return exp.Anonymous(this="range", expressions=[end for end in ends if end is not None])
        case exp.Explode() | exp.Unnest() if isinstance(node.parent, exp.Select | exp.Alias):
            return exp.Anonymous(this="arrayJoin", expressions=[node.this or node.expressions[0]])
        case exp.Lag() | exp.Lead():
            return _nullable(node)
        case exp.ArgMax() | exp.ArgMin() if not isinstance(node.parent, exp.Filter):
            return _arg(node, None)
        case exp.Ln():
            return exp.Anonymous(this="log", expressions=[node.this])
        case exp.Levenshtein():
            return exp.Anonymous(this="editDistanceUTF8", expressions=[node.this, node.expression])
        case exp.NullSafeEQ():
            return exp.Anonymous(this="isNotDistinctFrom", expressions=[node.this, node.expression])
        case exp.NullSafeNEQ():
            equal = exp.Anonymous(this="isNotDistinctFrom", expressions=[node.this, node.expression])
            return exp.Anonymous(this="not", expressions=[equal])
        case exp.Sum() | exp.Min() | exp.Max() | exp.Avg() if not isinstance(node.parent, exp.Filter):
            return _nullable(node)
        case exp.LogicalOr():
            return exp.Max(this=node.this)
        case exp.LogicalAnd():
            return exp.Min(this=node.this)
    return node


def _is_value(node: exp.Expr) -> bool:
    """Whether a column shows it, or a branch of a case gives it: what is true must come out as true, and not as 1."""
    parent = node.parent
    return (isinstance(parent, exp.Alias) and isinstance(parent.parent, exp.Select)) or (
        isinstance(parent, exp.If | exp.Case) and node.arg_key in ("true", "default")
    )


def _double(node: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this="toFloat64", expressions=[node])


def _nullable(node: exp.Expr) -> exp.Expr:
    """Over nothing an aggregate gives null, but only if its argument may be null."""
    node.set("this", exp.Anonymous(this="toNullable", expressions=[node.this]))
    return node


def _quantile(value: exp.Expr, fraction: exp.Expr) -> exp.Expr:
    """The exact percentile, interpolated between both neighbours as DuckDB does."""
    argument = exp.Anonymous(this="toNullable", expressions=[value])
    return exp.ParameterizedAgg(
        this="quantileExactInclusive", expressions=[fraction.copy()], params=[_double(argument)]
    )


def _arg(node: exp.Expr, condition: exp.Expr | None) -> exp.Expr:
    """`arg_max(x, y)` passes over rows whose x or y is null, and gives null over nothing."""
    name = "argMaxIf" if isinstance(node, exp.ArgMax) else "argMinIf"
    x, y = node.this, node.expression
    present = exp.and_(
        *(exp.Anonymous(this="isNotNull", expressions=[part.copy()]) for part in (x, *_parts(y))),
        *([condition] if condition is not None else []),
        copy=False,
    )
    present = exp.func("coalesce", present, exp.false())
    return exp.Anonymous(this=name, expressions=[exp.Anonymous(this="toNullable", expressions=[x]), y, present])


def _parts(order: exp.Expr) -> list[exp.Expr]:
    """What a row is ordered by: one value, or several in turn."""
    return order.expressions if isinstance(order, exp.Tuple) else [order]


def _filtered(node: exp.Filter) -> exp.Expr:
    """An aggregate of some rows: the others count as null."""
    aggregate, condition = node.this, node.expression.this
    if isinstance(aggregate, exp.ArgMax | exp.ArgMin):
        return _arg(aggregate, condition)
    if isinstance(aggregate, exp.Count):
        if isinstance(aggregate.this, exp.Star):
            return exp.Anonymous(this="countIf", expressions=[exp.func("coalesce", condition, exp.false())])
        inner = aggregate.this
        if isinstance(inner, exp.Distinct):
            value = _if(condition, inner.expressions[0])
            return exp.Count(this=exp.Distinct(expressions=[value]))
        return exp.Count(this=_if(condition, inner))
    if isinstance(aggregate, _SIMPLE_AGGREGATES):
        aggregate.set("this", _if(condition, aggregate.this))
        return aggregate
    if isinstance(aggregate, exp.PercentileCont | exp.Quantile):
        fraction = aggregate.args.get("quantile") or aggregate.expression
        return _quantile(_if(condition, aggregate.this), fraction)
    raise ReportError(f"a filter of {aggregate.sql(dialect='duckdb')} is not portable to ClickHouse")


def _if(condition: exp.Expr, value: exp.Expr) -> exp.Expr:
    return exp.Case(ifs=[exp.If(this=condition, true=exp.Anonymous(this="toNullable", expressions=[value]))])
