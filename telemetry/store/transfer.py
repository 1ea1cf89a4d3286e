"""Take spans out of a store into files that others read, and back: Parquet by day, and OTLP/JSON lines."""

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from telemetry import traces
from telemetry.errors import DecodeError, PayloadTooLarge, StoreError
from telemetry.receiver.otlp import MAX_TIME_NS, SPANS_SCHEMA, Rejection, Row
from telemetry.receiver.otlp_json import decode_json
from telemetry.store.duck import Request, Store
from telemetry.store.ledger import Ledger
from telemetry.store.retention import DAY_NS

ROWS: Final = 50_000
"""Written or committed at once."""
LINE_SPANS: Final = 1_000
"""In a line of OTLP/JSON: some 700 KB, below every receiver's limit."""
LINE_TEXT: Final = 1024 * 1024
"""Characters of a line's spans as they are stored, each with its resource and scope; a larger span is alone.
OTLP/JSON takes up to twelve for one, as `[],` is `{"arrayValue":{"values":[]}},` and what is not ASCII is escaped, and
has one part for each, of the 2 million that are taken."""
MAX_LINE: Final = 64 * 1024 * 1024
"""Characters: the limit of a request, which a line is."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What an export wrote, or an import read."""

    files: int
    spans: int
    duplicates: int = 0
    """Spans of an import that were in the store already."""
    rejected: tuple[Rejection, ...] = ()
    """Spans of an import that no store takes, by reason; the example names the line."""


def export_parquet(
    store: Store, folder: str | os.PathLike[str], *, since_ns: int = 0, until_ns: int = MAX_TIME_NS
) -> Moved:
    """Write spans by the day (UTC) of their start, as `day=2026-09-21/spans.parquet`.

    DuckDB, pandas and Spark read the folder as one data set. VARIANT columns become JSON text.
    A day that is there already is replaced at once and whole.

    Raises:
        StoreError: the folder cannot be written, or its disk is full.
    """
    days = store.query(
        f"select distinct start_ns // {DAY_NS} as day from spans "
        "where start_ns >= $since and start_ns < $until order by 1",
        _bounds(since_ns, until_ns),
    )["day"].to_pylist()
    spans = 0
    for day in days:
        name = f"day={datetime.fromtimestamp(day * DAY_NS // 10**9, UTC):%Y-%m-%d}"
        bounds = {"since": max(since_ns, day * DAY_NS), "until": min(until_ns, (day + 1) * DAY_NS)}
        with _written(Path(folder) / name / "spans.parquet") as partial:
            spans += _write_parquet(store, partial, bounds)
    return Moved(len(days), spans)


def import_parquet(store: Store, folder: str | os.PathLike[str]) -> Moved:
    """Store the spans of an export; what is there already stays as it is.

    Args:
        folder: what `export_parquet` wrote, or one of its files.

    Raises:
        StoreError: there is nothing to read, or it is not an export.
    """
    top = Path(folder)
    files = sorted(top.rglob("*.parquet")) if top.is_dir() else [top]
    if not files:
        raise StoreError(f"there are no .parquet files in {top}")
    moved = Moved(0, 0)
    for file in files:
        try:
            with pq.ParquetFile(file) as source:
                missing = {"trace_id", "span_id", "name", "start_ns", "end_ns"} - set(source.schema_arrow.names)
                if missing:
                    raise StoreError(f"{file} is no export of spans: it has no {', '.join(sorted(missing))}")
                for batch in source.iter_batches(ROWS):
                    moved = _stored(store, moved, _conformed(pa.table(batch)))
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"cannot read {file}: {error}") from error
        except DecodeError as error:
            raise StoreError(f"{file}: {error.message}") from error
        moved = replace(moved, files=moved.files + 1)
    return moved


def export_otlp(store: Store, file: str | os.PathLike[str], *, since_ns: int = 0, until_ns: int = MAX_TIME_NS) -> Moved:
    """Write spans as OTLP/JSON, one request a line, as the Collector's file exporter does; compressed for `….gz`.

    Raises:
        StoreError: the file cannot be written, or its disk is full.
    """
    spans = 0
    with (
        _written(Path(file)) as partial,
        _text(partial, Path(file), "wt") as out,
        store.reader() as reader,
        reader.batches(_select(store), _bounds(since_ns, until_ns), rows=LINE_SPANS) as found,
    ):
        for batch in found:
            for rows in _lines(batch.to_pylist()):
                out.write(json.dumps(traces.to_otlp(rows), separators=(",", ":")) + "\n")
                spans += len(rows)
    return Moved(1, spans)


def _lines(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The spans of each line."""
    begin = size = 0
    for at, row in enumerate(rows):
        more = sum(len(value) for value in row.values() if isinstance(value, str))
        if size and size + more > LINE_TEXT:
            yield rows[begin:at]
            begin, size = at, 0
        size += more
    yield rows[begin:]


def import_otlp(store: Store, file: str | os.PathLike[str], *, clock: Callable[[], int] = time.time_ns) -> Moved:
    """Store the spans of a file of OTLP/JSON lines; what is there already stays as it is.

    Spans that break a rule are left out, as the receiver leaves them out, and written down in the ledger.

    Args:
        clock: nanoseconds UTC; when the spans count as received.

    Raises:
        StoreError: the file cannot be read, or a line is no OTLP, or too large; the lines before it are stored.
    """
    path = Path(file)
    moved = Moved(1, 0)
    try:
        with _text(path, path, "rt") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE + 1), ""), 1):
                if not line.strip():
                    continue
                try:
                    if len(line) > MAX_LINE:
                        raise DecodeError(f"the line is longer than {MAX_LINE} characters; write shorter ones")
                    decoded = decode_json(line.encode(), clock())
                    where = f"{path.name}, line {number}"
                    rejected = [replace(one, example=f"{where}: {one.example}") for one in decoded.rejected]
                    moved = _stored(store, moved, decoded.table, rejected)
                except (DecodeError, PayloadTooLarge) as error:
                    raise StoreError(f"{file}, line {number}: {error.message}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {file}: {error}") from error
    return moved


def _stored(store: Store, moved: Moved, spans: pa.Table, rejected: Sequence[Rejection] = ()) -> Moved:
    ledger = Ledger()
    by_reason = {one.reason: one for one in moved.rejected}
    for one in rejected:
        ledger.refuse("import", one.reason, one.count, one.example)
        first = by_reason.setdefault(one.reason, replace(one, count=0))
        by_reason[one.reason] = replace(first, count=first.count + one.count)
    each = store.commit_each([Request(spans, "import")] if spans.num_rows else [], ledger, exact=True)
    return Moved(
        moved.files,
        moved.spans + sum(committed.stored for committed in each),
        moved.duplicates + sum(committed.duplicates for committed in each),
        tuple(by_reason.values()),
    )


def _conformed(spans: pa.Table) -> pa.Table:
    """The columns of this version in their order; null where the file is of another version and lacks one."""
    columns = [
        spans[field.name].cast(field.type) if field.name in spans.column_names else pa.nulls(len(spans), field.type)
        for field in SPANS_SCHEMA
    ]
    return pa.table(columns, schema=SPANS_SCHEMA)


def _write_parquet(store: Store, file: Path, bounds: dict[str, int]) -> int:
    rows = 0
    with (
        store.reader() as reader,
        reader.batches(_select(store), bounds, rows=ROWS) as found,
        pq.ParquetWriter(file, SPANS_SCHEMA, compression="zstd") as out,
    ):
        for batch in found:
            out.write_table(_conformed(pa.table(batch)))
            rows += batch.num_rows
    return rows


def _select(store: Store) -> str:
    return f"select {store.readable_columns} from spans where start_ns >= $since and start_ns < $until"


def _bounds(since_ns: int, until_ns: int) -> dict[str, Any]:
    return {"since": since_ns, "until": until_ns}


@contextmanager
def _written(target: Path) -> Iterator[Path]:
    """A file to write, which becomes `target` when it is complete."""
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(target)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _text(file: Path, name: Path, mode: str) -> IO[str]:
    if name.suffix == ".gz":
        return gzip.open(file, mode, encoding="utf-8")  # type: ignore[return-value]  # text modes only
    return file.open(mode, encoding="utf-8")
