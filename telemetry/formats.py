"""A report's rows as bytes: CSV, JSON, Parquet, Arrow. The command line and the query API write the same ones.

Points in time are written as ISO 8601 in UTC with as many digits as they need; NaN and infinities as JSON null.
No I/O, no clock.
"""

import csv
import io
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet

MEDIA_TYPES: Final = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
"""The formats, and the media type of each."""


def to_bytes(table: pa.Table, format: str) -> bytes:
    """Write a table in one of the formats of `MEDIA_TYPES`; JSON is a list of objects, one a line."""
    out = io.BytesIO()
    match format:
        case "json":
            rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in to_rows(table))
            out.write(f"[\n{rows}\n]\n".encode() if rows else b"[]\n")
        case "csv":
            out.write(_csv(table).encode())
        case "parquet":
            pa.parquet.write_table(table, out, compression="zstd")
        case "arrow":
            with pa.ipc.new_stream(out, table.schema) as writer:
                writer.write_table(table)
        case _:
            raise ValueError(f"no such format: {format}")
    return out.getvalue()


def from_arrow(body: bytes) -> pa.Table:
    """Read what `to_bytes(table, "arrow")` wrote."""
    return pa.ipc.open_stream(body).read_all()


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """One JSON-able dictionary per row."""
    return [{name: jsonable(value) for name, value in row.items()} for row in with_text_times(table).to_pylist()]


def with_text_times(table: pa.Table) -> pa.Table:
    """Replace the columns that hold points in time by their ISO 8601 text."""
    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(index, field.name, _iso_texts(table.column(index)))
    return table


def _iso_texts(times: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = pc.strftime(times.cast(pa.timestamp("ns", "UTC")), format="%Y-%m-%dT%H:%M:%SZ")
    return pc.replace_substring_regex(
        pc.replace_substring_regex(texts, pattern=r"\.0+Z$", replacement="Z"),
        pattern=r"(\.\d*[1-9])0+Z$",
        replacement=r"\1Z",
    )


def jsonable(value: object) -> Any:
    """A value as JSON can hold it."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [jsonable(item) for item in value]
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def _csv(table: pa.Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows([_csv_field(value) for value in row.values()] for row in to_rows(table))
    return out.getvalue()


def _csv_field(value: Any) -> Any:
    """NULL is an empty field; what CSV has no form for, lists and structs, is JSON."""
    return json.dumps(value) if isinstance(value, list | dict | bool) else value
