"""The statements of `queries/` in ClickHouse's SQL: SQLGlot translates, and what it would get wrong is put right here.

What cannot be had with equal answers is refused, with the name of the construct: a number is right or absent.
The settings of `telemetry.cluster.source` belong to it, for some rules of SQL are settings in ClickHouse.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

import sqlglot
from sqlglot import exp

from telemetry.cluster.ranges import name_attempts
from telemetry.cluster.shards import name_shards
from telemetry.errors import ReportError

PORTABLE: Final[frozenset[type[exp.Expr]]] = frozenset(
    {
        # what a statement is made of
        *(exp.Select, exp.With, exp.CTE, exp.From, exp.Join, exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered),
        *(exp.Limit, exp.Distinct, exp.Union, exp.Subquery, exp.Table, exp.TableAlias, exp.Alias, exp.Column, exp.Star),
        *(exp.Identifier, exp.Placeholder, exp.Parameter, exp.Literal, exp.Boolean, exp.Null, exp.Paren, exp.Tuple),
        *(exp.Cast, exp.DataType, exp.DataTypeParam, exp.Var),
        # arithmetic, comparison, choice
        *(exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod, exp.Neg, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT),
        *(exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ, exp.Is, exp.In, exp.Between, exp.And, exp.Or, exp.Not, exp.Case),
        *(exp.If, exp.Coalesce, exp.Nullif, exp.Greatest, exp.Least, exp.Abs, exp.Floor, exp.Ceil, exp.Exp, exp.Ln),
        exp.Sqrt,
        # texts and lists
        *(exp.Concat, exp.Left, exp.Right, exp.StartsWith, exp.EndsWith, exp.SplitPart, exp.Levenshtein),
        *(exp.Array, exp.Struct, exp.PropertyEQ, exp.Explode, exp.GenerateSeries, exp.ArrayContains),
        # aggregates and windows
        *(exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.LogicalOr, exp.LogicalAnd, exp.ArgMax, exp.ArgMin),
        *(exp.PercentileCont, exp.Filter, exp.Window, exp.WindowSpec, exp.Lag, exp.Lead, exp.RowNumber),
    }
)
"""What was shown to answer alike, by `tests/cluster/test_portable.py`; all else is refused."""
_PORTABLE_NAMES: Final = frozenset({"list_extract", "list_position", "md5_number_lower"})
_INSTEAD: Final[dict[type[exp.Expr], str]] = {
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
    exp.Exists: "exists: use a join or in (select …), which reach every node",
    exp.Length: "length(): use array_length() for lists; that of a text is in bytes in ClickHouse",
    exp.Mode: "mode(): which of equals is taken differs",
    exp.Rand: "random(): no two answers are equal",
}
"""What to say of those that come to mind."""
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
_TRUTHS: Final = (
    *(exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is, exp.In, exp.Between),
    *(exp.NullSafeEQ, exp.NullSafeNEQ, exp.StartsWith, exp.EndsWith, exp.ArrayContains),
)
_WHOLE: Final = (*_TRUTHS, exp.Boolean, exp.Count, exp.Floor, exp.Ceil, exp.IntDiv)
_TYPES: Final = {int: "Int64", float: "Float64", bool: "Bool", str: "String"}


@cache
def translated(sql: str, name: str, types: tuple[tuple[str, str], ...], *, of_short_range: bool = False) -> str:
    """A statement of DuckDB in ClickHouse's SQL.

    Args:
        name: the file, for the error.
        types: of each parameter, by `type_of`; parameters become `{name:Type}`.
        of_short_range: whether naming the attempts of its range first is less than merging all others.

    Raises:
        ReportError: a construct is outside the portable subset, or cannot be read.
    """
    tree = check(sql, name)
    known, structs = dict(types), _structs(tree)
    _order_by_answer(tree)
    name_shards(tree)
    if of_short_range:
        name_attempts(tree)
    for node in reversed(list(tree.bfs())):  # what is inside comes first
        if isinstance(node, exp.Parameter | exp.Placeholder):
            replacement = _bound(node, known)
        elif isinstance(node, exp.Column) and node.table in structs:
            replacement = _field(node, structs[node.table])
        else:
            replacement = _rewritten(node)
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


def _structs(tree: exp.Expr) -> dict[str, list[str]]:
    """The names of fields of each column that `unnest([{'name': …}, …]) as column` makes."""
    found = {}
    for alias in tree.find_all(exp.Alias):
        made = alias.this.find(exp.Struct) if isinstance(alias.this, exp.Explode) else None
        if made:
            found[alias.alias] = _names(made)
    return found


def _names(struct: exp.Struct) -> list[str]:
    return [field.name for field in struct.expressions]


def _field(column: exp.Column, names: Sequence[str]) -> exp.Expr:
    """A field by its place: ClickHouse's tuple of values has no names."""
    whole = exp.column(column.args["table"].copy())
    return _call("tupleElement", whole, exp.Literal.number(names.index(column.name) + 1))


def _refuse(tree: exp.Expr, name: str) -> None:
    """Raises ReportError for the first construct that has no equal in ClickHouse."""
    for node in tree.walk():
        reason = _reason(node)
        if reason:
            raise ReportError(f"{name} is not portable to ClickHouse: {reason}")
    if any(not isinstance(column, exp.Alias | exp.Column | exp.Star) for column in _outermost(tree).expressions):
        raise ReportError(f"{name} is not portable to ClickHouse: a column without a name: use as")


def _outermost(tree: exp.Expr) -> exp.Expr:
    """The select that names the columns of the answer."""
    return _outermost(tree.this) if isinstance(tree, exp.Union | exp.Subquery) else tree


def _reason(node: exp.Expr) -> str | None:
    """Why a construct has no equal; None if it has one."""
    if isinstance(node, exp.Anonymous):
        function = node.name.lower()
        return None if function in _PORTABLE_NAMES else f"{function}(): it was not shown to answer alike"
    if type(node) not in PORTABLE:
        word = node.sql_name().lower() + "()" if isinstance(node, exp.Func) else type(node).__name__.lower()
        return _INSTEAD.get(type(node), f"{word}: it was not shown to answer alike")
    inside = node.args.get("this")
    match node:
        case exp.GenerateSeries() if not node.args.get("is_end_exclusive"):
            return "generate_series(): use range()"
        case exp.Group() if node.args.get("all"):
            return "group by all: name the columns"
        case exp.Join():
            return _reason_of_join(node)
        case exp.WindowSpec() if node.args.get("kind") == "RANGE" and _has_bound(node):
            return "a window over a range of values: use rows"
        case exp.Cast():
            return _reason_of_cast(node)
        case exp.Not() if isinstance(inside, exp.Expr) and (found := inside.unnest()) and found.args.get("query"):
            return "not in (select …): use a join"
        case exp.EQ() | exp.NEQ() if _is_fraction(node.this) or _is_fraction(node.expression):
            return "a comparison with a fraction for equality: use a range"
        case exp.Distinct() if node.args.get("on") or (isinstance(node.parent, exp.AggFunc) and _is_odd_distinct(node)):
            return "distinct of several columns, or in an aggregate other than count: group first"
        case exp.Tuple() if not isinstance(node.parent, exp.ArgMax | exp.ArgMin | exp.In):
            return "a row of several values: compare them one by one"
        case exp.SplitPart() if not (isinstance(found := node.args["delimiter"], exp.Literal) and found.name):
            return "split_part() by what is no text between quotes"
        case exp.ArrayContains() if not isinstance(node.this, exp.Placeholder):
            return "list_contains() of what is no parameter: unnest it"
        case exp.Struct() if not node.find_ancestor(exp.Explode):
            return "a struct outside unnest([…]): use columns"
        case exp.Explode() if not (isinstance(node.parent, exp.Alias) and isinstance(node.parent.parent, exp.Select)):
            return "unnest() that is no column of its own"
        case exp.AggFunc() if node.find(exp.Order):
            return "an aggregate in an order: use arg_max()"
    return None


def _reason_of_join(node: exp.Join) -> str | None:
    method = str(node.args.get("method") or "").upper()
    if method in ("ASOF", "POSITIONAL"):
        return f"{method.lower()} join: use arg_max with a filter"
    side, kind = (str(node.args.get(part) or "").upper() for part in ("side", "kind"))
    if method or side not in ("", "LEFT") or kind not in ("", "INNER", "OUTER", "CROSS"):
        return f"{' '.join(filter(None, (method, side, kind))).lower()} join: use a join or left join"
    return None


def _reason_of_cast(node: exp.Cast) -> str | None:
    """A cast to a whole number rounds in DuckDB and cuts in ClickHouse; to a text, fractions and times differ."""
    to, value = node.to, node.this.unnest()
    if isinstance(value, exp.Null):
        return None
    if to.is_type(exp.DType.DOUBLE, exp.DType.BOOLEAN, exp.DType.JSON):
        return None if not to.is_type(exp.DType.JSON) or _is_text_of_json(node.parent) else "json: use a typed column"
    if to.is_type(exp.DType.BIGINT):
        literal = isinstance(value, exp.Literal) and value.is_int
        return None if literal or isinstance(value, _WHOLE) else "a cast to a whole number: use floor()"
    return None if _is_text_of_json(node) else f"a cast to {to.sql('duckdb').lower()}: use the value itself"


def _is_text_of_json(node: exp.Expr | None) -> bool:
    """`x::json::varchar`, which is how the attributes of a span are asked for."""
    return (
        isinstance(node, exp.Cast)
        and node.to.is_type(exp.DType.TEXT)
        and isinstance(node.this, exp.Cast)
        and node.this.to.is_type(exp.DType.JSON)
    )


def _is_fraction(node: exp.Expr) -> bool:
    return isinstance(node.unnest(), exp.Div) or any(
        not part.is_string and not part.is_int for part in node.find_all(exp.Literal)
    )


def _is_odd_distinct(node: exp.Distinct) -> bool:
    return not isinstance(node.parent, exp.Count) or len(node.expressions) > 1


def _has_bound(window: exp.WindowSpec) -> bool:
    return any(isinstance(window.args.get(side), exp.Expr) for side in ("start", "end"))


def _rewritten(node: exp.Expr) -> exp.Expr:
    """One node as ClickHouse needs it."""
    if isinstance(node, exp.Condition) and isinstance(node, _TRUTHS) and _is_value(node):
        return exp.Cast(this=node.copy(), to=exp.DataType.build("Nullable(Bool)", dialect="clickhouse"))
    match node:
        case exp.Is(this=exp.Null() | exp.Placeholder(), expression=exp.Null()):
            return exp.Boolean(this=isinstance(node.this, exp.Null))
        case exp.And() | exp.Or():
            return _decided(node)
        case exp.IntDiv():
            return _call("intDiv", node.this, node.expression)
        case exp.Div():
            return _call("divide", _double(node.this), _double(node.expression))
        case exp.PercentileCont() if not isinstance(node.parent, exp.Filter):
            return _quantile(node.this, node.expression)
        case exp.Quantile() if not isinstance(node.parent, exp.Filter):
            return _quantile(node.this, node.args["quantile"])
        case exp.Filter():
            return _filtered(node)
        case exp.GenerateSeries():
            ends = [node.args["start"], node.args["end"], node.args.get("step")]
            return _call("range", *(end for end in ends if end is not None))
        case exp.Explode() | exp.Unnest() if isinstance(node.parent, exp.Select | exp.Alias):
            return _call("arrayJoin", node.this or node.expressions[0])
        case exp.Struct():
            return _call("tuple", *(field.expression for field in node.expressions))
        case exp.ArrayContains(this=exp.Placeholder()):
            return exp.In(this=node.expression, expressions=[node.this])  # `has` uses no index
        case exp.Cast() if _is_text_of_json(node):
            attributes: exp.Expr = node.this.this  # which a cluster keeps as JSON
            return attributes
        case exp.Lag() | exp.Lead():
            return _nullable(node)
        case exp.ArgMax() | exp.ArgMin() if not isinstance(node.parent, exp.Filter):
            return _arg(node, None)
        case exp.Anonymous() if node.name.lower() == "md5_number_lower":
            half = _call("substring", _call("MD5", *node.expressions), *map(exp.Literal.number, (9, 8)))
            return _call("reinterpretAsUInt64", half)
        case exp.Ln():
            return _call("log", node.this)
        case exp.Levenshtein():
            return _call("editDistance", node.this, node.expression)
        case exp.Left() | exp.Right():
            side = "leftUTF8" if isinstance(node, exp.Left) else "rightUTF8"
            return _call(side, node.this, node.expression)
        case exp.SplitPart():
            parts = _call("splitByString", node.args["delimiter"], _call("assumeNotNull", node.this))
            return _if(_call("isNotNull", node.this.copy()), _call("arrayElement", parts, node.args["part_index"]))
        case exp.Anonymous() if node.name.lower() == "list_position":
            place = _call("indexOf", *node.expressions)
            return exp.func("nullIf", place, exp.Literal.number(0))
        case exp.Anonymous() if node.name.lower() == "list_extract":
            return _call("arrayElementOrNull", *node.expressions)
        case exp.NullSafeEQ():
            return _call("isNotDistinctFrom", node.this, node.expression)
        case exp.NullSafeNEQ():
            equal = _call("isNotDistinctFrom", node.this, node.expression)
            return _call("not", equal)
        case exp.Sum() | exp.Min() | exp.Max() | exp.Avg() if not isinstance(node.parent, exp.Filter):
            return _nullable(node)
        case exp.LogicalOr():
            return exp.Max(this=node.this)
        case exp.LogicalAnd():
            return exp.Min(this=node.this)
    return node


def _order_by_answer(tree: exp.Expr) -> None:
    """`order by name` means the column of the answer; ClickHouse would take that of the table."""
    for select in tree.find_all(exp.Select):
        order, made = select.args.get("order"), {one.alias: one.this for one in select.selects if one.alias}
        for ordered in order.expressions if order else ():
            if isinstance(ordered.this, exp.Column) and not ordered.this.table and ordered.this.name in made:
                ordered.set("this", made[ordered.this.name].copy())


def _is_value(node: exp.Expr) -> bool:
    """Whether a column shows it, or a branch of a case gives it: what is true must come out as true, and not as 1."""
    parent = node.parent
    return (isinstance(parent, exp.Alias) and isinstance(parent.parent, exp.Select)) or (
        isinstance(parent, exp.If | exp.Case) and node.arg_key in ("true", "default")
    )


def _decided(node: exp.And | exp.Or) -> exp.Expr:
    """Without what is true or false already: `$x is null or …` names no day and no row of an index otherwise."""
    decides = isinstance(node, exp.Or)
    for one, other in ((node.this, node.expression), (node.expression, node.this)):
        known = one.unnest()
        if isinstance(known, exp.Boolean):
            return known if known.this is decides else other
    return node


def _double(node: exp.Expr) -> exp.Expr:
    return _call("toFloat64", node)


def _nullable(node: exp.Expr) -> exp.Expr:
    """Over nothing an aggregate gives null, but only if its argument may be null."""
    node.set("this", _call("toNullable", node.this))
    return node


def _quantile(value: exp.Expr, fraction: exp.Expr) -> exp.Expr:
    """The exact percentile, interpolated between both neighbours as DuckDB does."""
    argument = _call("toNullable", value)
    return exp.ParameterizedAgg(
        this="quantileExactInclusive", expressions=[fraction.copy()], params=[_double(argument)]
    )


def _arg(node: exp.Expr, condition: exp.Expr | None) -> exp.Expr:
    """`arg_max(x, y)` passes over rows whose x or y is null, and gives null over nothing.

    If y is several values in turn, the row counts, and a null among them is the largest.
    """
    name = "argMaxIf" if isinstance(node, exp.ArgMax) else "argMinIf"
    x, y = node.this, node.expression
    needed = [x] if isinstance(y, exp.Tuple) else [x, y]
    if isinstance(y, exp.Tuple):
        y = exp.Tuple(expressions=[term for part in y.expressions for term in (_call("isNull", part.copy()), part)])
    present = exp.and_(
        *(_call("isNotNull", part.copy()) for part in needed),
        *([condition] if condition is not None else []),
        copy=False,
    )
    return _call(name, _call("toNullable", x), y, exp.func("coalesce", present, exp.false()))


def _call(name: str, *arguments: exp.Expr) -> exp.Expr:
    """A function of ClickHouse."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def _filtered(node: exp.Filter) -> exp.Expr:
    """An aggregate of some rows: the others count as null."""
    aggregate, condition = node.this, node.expression.this
    if isinstance(aggregate, exp.ArgMax | exp.ArgMin):
        return _arg(aggregate, condition)
    if isinstance(aggregate, exp.Count):
        if isinstance(aggregate.this, exp.Star):
            return _call("countIf", exp.func("coalesce", condition, exp.false()))
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
    return exp.Case(ifs=[exp.If(this=condition, true=_call("toNullable", value))])
