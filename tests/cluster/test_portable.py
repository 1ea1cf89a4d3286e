"""What the dialect takes for portable answers like DuckDB: the same snippets on both, over rows on two nodes."""

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
from sqlglot import exp

from telemetry.cluster import source
from telemetry.cluster.dialect import PORTABLE, check
from tests.cluster.nodes import Cluster
from tests.cluster.test_reports import assert_equal

ROWS = (
    "(values (1::bigint, 'a', 1.5::double, true), (2, 'bé', 2.5, false), (3, null, null, null), (null, 'a', -1, true))"
)
SNIPPETS = (
    "select i, s, f, b from t order by i",
    "select i from t where i not in (1, 2) order by i",
    "select i in (1, 2) as x, i not in (1, 2) as y, i between 2 and 3 as z from t order by i",
    "select i / 0 as x, i / 2 as y, i // 2 as z, -i // 2 as u, i % 2 as v, -i as w from t order by i",
    "select i + 1 as x, i - 1 as y, i * 2 as z, abs(-i) as u, cast(i as double) * 0.5 as v from t order by i",
    "select i = 1 as a, i <> 1 as b, i < 2 as c, i <= 2 as d, i > 2 as e, i >= 2 as f from t order by i",
    "select s is null as u, b and i = 1 as x, b or i = 1 as y, not b as z, b as w, true as v from t order by i",
    "select i is not distinct from null as x, s is distinct from 'a' as y from t order by i",
    "select case s when 'a' then 1 when 'bé' then 2 end as x, case when b then 'x' else 'y' end as y from t order by i",
    "select coalesce(s, 'z') as x, nullif(i, 1) as y, greatest(i, 2) as z, least(f, null) as u from t order by i",
    "select floor(f) as x, ceil(f) as y, floor(f)::bigint as z, (i = 1)::bigint as w from t order by i",
    "select sqrt(abs(f)) as x, ln(abs(f)) as y, exp(f) as z from t order by i",
    "select concat(s, ', ', 'x') as x from t order by i",
    "select i, cast(null as varchar) as x, cast(null as bigint) as y from t order by i",
    "select left(s, 2) as x, right(s, 1) as y, starts_with(s, 'a') as z, ends_with(s, 'é') as w from t order by i",
    "select levenshtein(s, 'be') as x from t order by i",
    "select split_part(concat(s, ', x'), ', ', i) as x, split_part(s, 'b', 2) as y, split_part(s, 'b', 9) as z "
    "from t where i is not null or s is null order by i",
    "select md5_number_lower(s) % 4294967296 as x from t order by i",
    "select list_extract([10, 20], list_position(['bé', 'a'], s)) as x, list_position(['a'], s) as y from t order by i",
    "select s from t where list_contains($texts, s) order by i",
    "select unnest(range(0, 5, 2)) as x order by x",
    "with pairs as (select unnest([{'n': s, 'v': i}, {'n': 'q', 'v': 5}]) as pair from t) "
    "select pair.n as n, count(*) as c, max(pair.v) as v from pairs group by pair.n order by n",
    "select count(*) as x, count(s) as y, count(distinct s) as z, count(distinct s) filter (where b) as w from t",
    "select sum(f) as a, avg(i) as b, min(s) as c, max(s) as d, max(b) as e, bool_or(b) as f, bool_and(b) as g from t",
    "select sum(f) as a, avg(i) as b, min(s) as c, count(*) as d, bool_or(b) as e from t where i > 100",
    "select sum(f) filter (where b) as x, min(i) filter (where f > 1) as y, count(*) filter (where b) as z from t",
    "select arg_max(s, i) as a, arg_min(s, f) as b, arg_max(s, (f, i)) as c, arg_min(i, (b, f)) as d from t",
    "select arg_max(s, f) filter (where b) as x, arg_max(s, (f, i)) filter (where i > 5) as y from t",
    "select quantile_cont(f, 0.5) as x, quantile_cont(i, 0.9) as y, quantile_cont(f, 0.5) filter (where b) as z from t",
    "select s, count(*) as n from t group by s having count(*) > 1 order by s",
    "select max(i) as i, s from t group by 2 order by i desc, s",
    "select -i as i from t order by i limit 2",
    "select distinct s from t order by s",
    "select lag(i) over (order by f) as x, lead(i, 1, 7) over (order by f) as y from t order by f",
    "select i, sum(f) over (order by i rows between 1 preceding and current row) as x from t order by i",
    "select s, row_number() over (partition by s order by i) as x from t order by s, x",
    "select a.i as i, b.f as f from t a left join t b on a.i = b.i order by i",
    "select a.i as i from t a join t b using (i) cross join (select 1 as one union all select 2) as two order by i",
    "select i from t union select 1 order by i",
    "select (select count(*) from t where b) as n",
    "select count(*) as n from t where i in (select i from t where b)",
)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Texts, whole numbers, fractions and truths, with nulls."""
    return duckdb.sql(f"select * from {ROWS} as t(i, s, f, b)").to_arrow_table()


@pytest.fixture(scope="module")
def asked(cluster: Cluster, rows: pa.Table) -> Iterator[source.Cluster]:
    """A cluster with these rows on two nodes."""
    cluster.everywhere(
        "create table telemetry.t_local (i Nullable(Int64), s Nullable(String), f Nullable(Float64), b Nullable(Bool)) "
        "engine MergeTree order by tuple()",
        "create table telemetry.t as telemetry.t_local engine Distributed(fleet, telemetry, t_local, ifNull(i, 0))",
    )
    with cluster.nodes[0].client("telemetry") as client:
        client.insert_arrow("t", rows)
    with source.opened(cluster.url()) as opened:
        yield opened


@pytest.mark.real
@pytest.mark.parametrize("sql", SNIPPETS)
def test_a_snippet_answers_alike(sql: str, rows: pa.Table, asked: source.Cluster) -> None:
    """Names, types, values, nulls and order."""
    params = {"texts": ["a", "c"]} if "$texts" in sql else {}
    with duckdb.connect() as connection:
        connection.register("t", rows)
        expected = connection.sql(sql, params=params).to_arrow_table()

    assert_equal(expected, asked.query(sql, params))


def test_all_that_is_portable_has_a_snippet() -> None:
    """A construct becomes portable by a snippet that shows it."""
    shown = {type(node) for sql in SNIPPETS for node in check(sql, "a snippet").walk()}

    assert not {kind.__name__ for kind in PORTABLE - shown - {exp.Parameter, exp.DataTypeParam, exp.Var, exp.Null}}
