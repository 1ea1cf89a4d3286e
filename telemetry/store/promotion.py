"""Move what became a typed column out of the other attributes, in spans that are there already. Makes text.

As the receiver does with spans that arrive: a value of the column's type goes there, and leaves the attributes.
What a resource says fills the column where the span says nothing, and stays with the resource where both may say it.
"""

from collections.abc import Iterable
from typing import Final

from telemetry.semconv import MAX_TYPED_FLOAT, MAX_TYPED_INT, Column

_JSON_TYPES: Final = {
    "text": ("varchar", "'VARCHAR'"),
    "int": ("bigint", "'BIGINT', 'UBIGINT'"),
    "float": ("double", "'DOUBLE'"),
    "bool": ("boolean", "'BOOLEAN'"),
}
_LIMITS: Final = {"int": MAX_TYPED_INT, "float": MAX_TYPED_FLOAT}


def concerned(added: Iterable[Column]) -> str:
    """Whether a span has a value for one of the columns: a condition."""
    return " or ".join(f"{_value(column)} is not null" for column in added)


def values(added: Iterable[Column], kind: str) -> dict[str, str]:
    """What changed columns of a span hold, by their names.

    Args:
        kind: of the columns of attributes, `variant` or `varchar`.
    """
    columns = list(added)
    spans = [(column.span, _at("attributes", column.span, column.type)) for column in columns if column.span]
    resources = [
        (column.resource, _at("resource_attributes", column.resource, column.type))
        for column in columns
        if column.resource and not column.span
    ]
    return {
        **{column.name: _value(column) for column in columns},
        "attributes": _without("attributes", spans, kind),
        "resource_attributes": _without("resource_attributes", resources, kind),
    }


def _value(column: Column) -> str:
    places = (("attributes", column.span), ("resource_attributes", column.resource))
    return f"coalesce({', '.join(_at(where, key, column.type) for where, key in places if key)})"


def _at(attributes: str, key: str, kind: str) -> str:
    """An attribute's value, null unless it may fill a column of that type."""
    path = f"""'$."{key}"'"""
    sql_type, json_types = _JSON_TYPES[kind]
    value = f"try_cast(json_extract_string({attributes}::json, {path}) as {sql_type})"
    # Not by `abs`: DuckDB fails of the smallest of all integers.
    within = f" and {value} > -{_LIMITS[kind]} and {value} < {_LIMITS[kind]}" if kind in _LIMITS else ""
    return f"case when json_type({attributes}::json, {path}) in ({json_types}){within} then {value} end"


def _without(attributes: str, taken: list[tuple[str, str]], kind: str) -> str:
    """Attributes without those that have a value as a column; null where none is left."""
    rest = f"{attributes}::json"
    for key, value in taken:
        rest = f"""json_merge_patch({rest}, case when {value} is null then '{{}}' else '{{"{key}": null}}' end)"""
    any_taken = " or ".join(f"{value} is not null" for _, value in taken) or "false"
    return f"case when {any_taken} then nullif({rest}, '{{}}')::{kind} else {attributes} end"
