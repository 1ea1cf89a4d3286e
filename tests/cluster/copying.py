"""Relations of a DuckDB store as Distributed tables of a cluster, for tests of what is above the store."""

import pyarrow as pa

from telemetry.cluster.ranges import PIECES
from telemetry.store.duck import Store
from tests.cluster.nodes import Cluster

RELATIONS = (
    "spans", "connections", "ids", "steps", "durations", "sessions", "episodes", "samples", "ingest", "verdicts",
)  # fmt: skip
TYPES = {pa.string(): "String", pa.int64(): "Int64", pa.float64(): "Float64", pa.bool_(): "Bool"}
VARIANTS = "attributes", "resource_attributes", "resource_entity_refs", "scope_attributes", "events", "links"


def copy(store: Store, cluster: Cluster, database: str = "telemetry") -> None:
    """Make each relation a table on each node, shared out by trace where there is one, and fill it."""
    for relation in RELATIONS:
        replaced = f"replace ({', '.join(f'{name}::json::varchar as {name}' for name in VARIANTS)})"
        rows = store.query(f"select * {replaced if relation == 'spans' else ''} from {relation}")
        rows = rows.cast(pa.schema([(f.name, _plain(f.type)) for f in rows.schema]))
        columns = ", ".join(f"`{f.name}` {_type(f)}" for f in rows.schema)
        key = "cityHash64(trace_id)" if "trace_id" in rows.schema.names else "rand()"
        cluster.everywhere(
            f"create table {database}.{relation}_local ({columns}) engine MergeTree order by tuple()",
            f"create table {database}.{relation} as {database}.{relation}_local "
            f"engine Distributed({cluster.name}, {database}, {relation}_local, {key})",
        )
        with cluster.nodes[0].client(database) as client:
            client.insert_arrow(relation, rows)
    for relation in set(PIECES.values()):  # a whole row is one piece
        whole = relation.replace("stored_", "") + "_local"
        cluster.everywhere(f"create view {database}.{relation} as select * from {database}.{whole}")


def _type(field: pa.Field) -> str:
    return TYPES[field.type] if field.name == "trace_id" else f"Nullable({TYPES[field.type]})"


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_decimal(kind) or pa.types.is_integer(kind) else kind
