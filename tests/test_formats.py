"""A report's rows as bytes."""

import csv
import io
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet
import pytest

from telemetry import formats

NANOSECOND = 1_763_867_045_123_456_789

TABLE = pa.table(
    {
        "bucket": pa.array([NANOSECOND, 1_763_867_045_000_000_000, None], pa.timestamp("ns", "UTC")),
        "attempts": pa.array([3, 2**60, None], pa.int64()),
        "failure_ratio": pa.array([0.5, float("nan"), None], pa.float64()),
        "message": ['a "quoted", text\nof two lines', "", None],
        "parts": pa.array([[1, 2], [], None], pa.list_(pa.int64())),
        "total": pa.array([Decimal(7), Decimal(2**70), None], pa.decimal128(38, 0)),
    }
)


def test_json_is_one_object_a_line() -> None:
    """JSON holds every value as itself: times as ISO 8601 with the digits they need, NaN and NULL as null."""
    text = formats.to_bytes(TABLE, "json").decode()
    rows = json.loads(text)

    assert len(text.splitlines()) == TABLE.num_rows + 2
    assert rows[0] == {
        "bucket": "2025-11-23T03:04:05.123456789Z",
        "attempts": 3,
        "failure_ratio": 0.5,
        "message": 'a "quoted", text\nof two lines',
        "parts": [1, 2],
        "total": 7,
    }
    assert rows[1]["bucket"] == "2025-11-23T03:04:05Z"
    assert rows[1]["attempts"] == 2**60
    assert rows[1]["total"] == 2**70
    assert rows[1]["failure_ratio"] is None
    assert set(rows[2].values()) == {None}


def test_json_of_nothing_is_an_empty_list() -> None:
    """A report without rows is still JSON."""
    assert json.loads(formats.to_bytes(TABLE.slice(0, 0), "json")) == []


def test_csv_survives_a_csv_reader() -> None:
    """CSV has a header, quotes what needs it, and writes lists as JSON."""
    rows = list(csv.DictReader(io.StringIO(formats.to_bytes(TABLE, "csv").decode(), newline="")))

    assert rows[0]["message"] == 'a "quoted", text\nof two lines'
    assert rows[0]["bucket"] == "2025-11-23T03:04:05.123456789Z"
    assert json.loads(rows[0]["parts"]) == [1, 2]
    assert rows[2]["attempts"] == ""


def test_parquet_and_arrow_keep_the_types() -> None:
    """Parquet and Arrow give back the very table."""
    assert pyarrow.parquet.read_table(io.BytesIO(formats.to_bytes(TABLE, "parquet"))).schema == TABLE.schema
    assert formats.from_arrow(formats.to_bytes(TABLE, "arrow")).schema == TABLE.schema


def test_times_of_any_unit_are_written_in_utc() -> None:
    """A timestamp without zone or of another unit is written as the same instant in UTC."""
    table = pa.table({"at": pa.array([1_500_000], pa.timestamp("us"))})

    assert formats.to_rows(table) == [{"at": "1970-01-01T00:00:01.5Z"}]


def test_another_format_is_refused() -> None:
    """A format that does not exist is an error, not a guess."""
    with pytest.raises(ValueError, match="no such format"):
        formats.to_bytes(TABLE, "xml")
