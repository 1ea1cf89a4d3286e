"""Say which shards a look-up concerns, where a statement reads what a few rows name. Pure: no I/O, no clock.

`… from ids where id_hash = …` names a few attempts, and a join with them reads these alone.
DuckDB finds that out while it joins; ClickHouse asks every shard for all it has, and joins then.
But it answers a subquery in the place of a value before all else, and goes by its answer as by a constant: it skips
shards, and finds rows by the index. So what is joined with is said a second time, as such a value, which leaves out
nothing that the join would keep.
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
    values = [value for join in joins or () if (value := _of_join(join, few))]
    for value in values:
        select.where(value, copy=False)
    return bool(values) or (not joins and (source is None or name in few or by_hash))


def _of_join(join: exp.Join, few: Mapping[str, Sequence[str]]) -> exp.Expr | None:
    """What a join with a few rows says of a key."""
    name, on = join.this.name, join.args.get("on")
    if name not in few or join.side or on is None:
        return None
    for equal in on.flatten() if isinstance(on, exp.And) else [on]:
        if not isinstance(equal, exp.EQ):
            continue
        for key, value in ((equal.this, equal.expression), (equal.expression, equal.this)):
            if key.name in KEYS and key.name not in few[name] and value.name in few[name]:
                return _among(key, value.name, name)
    return None


def _among(key: exp.Expr, column: str, table: str) -> exp.Expr:
    values = exp.select(exp.Anonymous(this="groupArray", expressions=[exp.column(column)])).from_(table)
    return exp.In(this=key.copy(), expressions=[exp.Anonymous(this="assumeNotNull", expressions=[values.subquery()])])
