"""Say which attempts a range of time concerns, where a statement reads those of a range. Pure: no I/O, no clock.

Attempts lie in pieces that every question merges, and when one began is known once its pieces are merged: so ClickHouse
merges all there are, and takes those that began in the range.
But the earliest piece of an attempt says when it began, as each minimum or maximum is that of one of its pieces.
So those that have such a piece are named first, out of two columns, and no others are merged.
"""

from collections.abc import Mapping
from typing import Final

from sqlglot import exp

from telemetry.cluster.shards import conjuncts

PIECES: Final[Mapping[str, str]] = {
    "connections": "stored_connections",
    "verdicts": "stored_connections",
    "steps": "stored_steps",
    "durations": "stored_steps",
}
"""Where each shard has the pieces of its rows: see `telemetry.cluster.schema`."""
MOMENTS: Final = ("start_ns", "disconnected_ns")
"""A minimum and a maximum, which those relations have as their pieces do."""
_BOUNDS: Final[Mapping[type[exp.Expr], str]] = {exp.GTE: "from", exp.GT: "from", exp.LT: "to", exp.LTE: "to"}


def name_attempts(tree: exp.Expr) -> None:
    """Change a statement of DuckDB in place."""
    for select in list(tree.find_all(exp.Select)):
        source, where = select.args.get("from_"), select.args.get("where")
        pieces = PIECES.get(source.this.name) if source else None
        if pieces is None or where is None or select.args.get("joins"):
            continue
        for moment in MOMENTS:
            bounds = [one for one in conjuncts(where.this) if isinstance(one, tuple(_BOUNDS)) and _bounds(one, moment)]
            if {_BOUNDS[type(one)] for one in bounds} == {"from", "to"}:
                named = exp.select("trace_id").from_(pieces).where(*(one.copy() for one in bounds))
                select.where(exp.In(this=exp.column("trace_id"), query=named.subquery()), copy=False)


def _bounds(comparison: exp.Expr, moment: str) -> bool:
    """Whether it compares a moment with what is known before anything is read."""
    return (
        isinstance(comparison.this, exp.Column)
        and comparison.this.name == moment
        and not comparison.expression.find(exp.Column, exp.Select)
    )
