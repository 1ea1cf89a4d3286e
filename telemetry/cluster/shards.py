"""Say which shards a look-up concerns, where a statement reads what a few rows name. Pure: no I/O, no clock.

`… from ids where id_hash = …` names a few attempts, and a join with them reads these alone.
DuckDB finds that out while it joins; ClickHouse asks every shard for all it has, and joins then.
But it answers a subquery in the place of a value before all else, and goes by its answer as by a constant: it skips
shards, and finds rows by the index. So what is joined with is said a second time, as such a value, which leaves out
nothing that the join would keep; and where rows lie between times of what they are joined with, so are the first and
the last of these, by which days are skipped.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlglot import exp

KEYS: Final = ("trace_id", "id_hash")
"""By what relations are shared out over the shards, and sorted there: see `telemetry.cluster.schema`."""


def name_shards(tree: exp.Expr) -> None:
    """Change a statement of DuckDB in place."""
    few: dict[str, Sequence[str]] = {}
    for cte in tree.find_all(exp.CTE):
        if all([_has_few_rows(select, few) for select in cte.this.find_all(exp.Select)]):
            few[cte.alias] = cte.this.named_selects
    if isinstance(tree, exp.Select):
        _has_few_rows(tree, few)


def _has_few_rows(select: exp.Select, few: Mapping[str, Sequence[str]]) -> bool:
    """Whether a select reads a few rows only; where it does by a key, it says of which shards.

    Args:
        few: what is known to have a few rows, with its columns.
    """
    source, where, joins = (select.args.get(part) for part in ("from_", "where", "joins"))
    name = source.this.name if source else ""
    by_hash = name == "ids" and where is not None and any(one.name == "id_hash" for one in where.find_all(exp.Column))
    for found in list(where.find_all(exp.In)) if where else ():
        query = found.args["query"].unnest() if found.args.get("query") else None
        if isinstance(query, exp.Select) and found.this.name in KEYS and query.args["from_"].this.name in few:
            found.replace(_among(found.this, query.selects[0].name, query.args["from_"].this.name))
    values = [value for join in joins or () for value in _of_join(join, where, few)]
    select.where(*values, copy=False)
    return bool(values) or (not joins and (source is None or name in few or by_hash))


def _of_join(join: exp.Join, where: exp.Where | None, few: Mapping[str, Sequence[str]]) -> list[exp.Expr]:
    """What a join with a few rows says of a key, and what is compared with these rows beside it."""
    name, on = join.this.name, join.args.get("on")
    if name not in few or join.side or on is None:
        return []
    ours = set(few[name])
    for equal in conjuncts(on):
        if not isinstance(equal, exp.EQ):
            continue
        for key, value in ((equal.this, equal.expression), (equal.expression, equal.this)):
            if key.name in KEYS and key.name not in ours and value.name in ours:
                beside = conjuncts(where.this) if where else ()
                bounds = [one for one in beside if _is_bound(one) and one.expression.name in ours - {one.this.name}]
                return _values(key, value.name, bounds, name)
    return []


def conjuncts(condition: exp.Expr) -> Sequence[exp.Expr]:
    """The conditions that hold where this one does."""
    return list(condition.flatten()) if isinstance(condition, exp.And) else [condition]


def _is_bound(node: exp.Expr) -> bool:
    """Whether it compares a column with another."""
    return (
        isinstance(node, exp.GTE | exp.GT | exp.LTE | exp.LT)
        and isinstance(node.this, exp.Column)
        and isinstance(node.expression, exp.Column)
    )


def _values(key: exp.Expr, column: str, bounds: Sequence[exp.Expr], table: str) -> list[exp.Expr]:
    """One row of a table says all: the same subquery in several places is answered once."""
    ends = ["min" if isinstance(bound, exp.GTE | exp.GT) else "max" for bound in bounds]
    found = [_call("groupArray", exp.column(column))]
    found += [_call(end, bound.expression.copy()) for end, bound in zip(ends, bounds, strict=True)]
    row = exp.select(_call("tuple", *found)).from_(table).subquery()

    def value(place: int) -> exp.Expr:
        return _call("tupleElement", row.copy(), exp.Literal.number(place))

    limits = [type(bound)(this=bound.this.copy(), expression=value(place)) for place, bound in enumerate(bounds, 2)]
    return [exp.In(this=key.copy(), expressions=[_call("assumeNotNull", value(1))]), *limits]


def _among(key: exp.Expr, column: str, table: str) -> exp.Expr:
    values = exp.select(_call("groupArray", exp.column(column))).from_(table)
    return exp.In(this=key.copy(), expressions=[_call("assumeNotNull", values.subquery())])


def _call(name: str, *arguments: exp.Expr) -> exp.Expr:
    """A function of ClickHouse."""
    return exp.Anonymous(this=name, expressions=list(arguments))
