"""Say what is in a store, and whether its maintained relations equal their definitions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from telemetry.store.opening import SCHEMA_VERSION
from telemetry.store.relations import DEFINED, defined

if TYPE_CHECKING:
    from telemetry.store.duck import Store


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one comparison."""

    name: str
    rows: int
    differing: int
    """Rows that only one side has; 0 means that they are equal."""
    example: str | None
    """The key of one that differs."""

    @property
    def passed(self) -> bool:
        return self.differing == 0


def info(store: "Store") -> dict[str, Any]:
    """What the file holds and how large it is."""
    facts = store.query(
        "select (select count(*) from spans) as spans, (select count(*) from stored.spans) as stored_spans, "
        "(select count(*) from connections) as connections, (select count(*) from sessions) as sessions, "
        "(select min(start_ns) from spans) as first_ns, (select max(end_ns) from spans) as last_ns, "
        "(select max(received_ns) from spans) as last_received_ns"
    ).to_pylist()[0]
    facts["waiting_spans"] = facts["spans"] - facts.pop("stored_spans")
    return {"path": str(store.path), "schema_version": SCHEMA_VERSION, **facts, **sizes(store)}


def sizes(store: "Store") -> dict[str, Any]:
    """What is on disk, and what is wrong with it."""
    free = store.query(
        "select free_blocks * block_size as free_bytes from pragma_database_size() where database_name <> 'tail'"
    ).to_pylist()[0]
    return {
        "file_bytes": store.path.stat().st_size,
        **free,
        "wal_bytes": store.wal_bytes,
        "trouble": store.trouble,
    }


def verify(store: "Store") -> list[Check]:
    """Compare each maintained relation with its definition, and look for spans that are there twice.

    Reads every span: seconds for each ten million.
    """
    checks = []
    for name, keys in DEFINED.items():
        row = store.query(
            f"with kept as materialized (from {name}), defined as materialized (\n{defined(name)}\n), "
            "different as (select * from ((from kept except from defined) union all (from defined except from kept))) "
            f"select (select count(*) from defined) as row_count, count(*) as differing, "
            f"min(concat_ws(' ', {', '.join(keys)})) as example from different"
        ).to_pylist()[0]
        checks.append(Check(f"{name} equal their definition", row["row_count"], row["differing"], row["example"]))
    row = store.query(
        "select coalesce(sum(n), 0)::bigint as row_count, count(*) filter (n > 1) as differing, "
        "min(concat_ws(' ', trace_id, span_id)) filter (n > 1) as example "
        "from (select trace_id, span_id, count(*) as n from spans group by 1, 2)"
    ).to_pylist()[0]
    checks.append(Check("every span is there once", row["row_count"], row["differing"], row["example"]))
    return checks
