"""One session has the same story, the same verdict and the same capsule on a cluster as in a DuckDB file."""

from collections.abc import Callable, Iterator

import pytest

from telemetry.cluster import source
from telemetry.errors import SessionNotFound
from telemetry.store.duck import Store
from telemetry.support import capsule, find, story
from telemetry.support.asking import ask
from tests.cluster.nodes import Cluster, passed_on

pytestmark = pytest.mark.real

ONE_OF_EACH = """
select min(attempt_id) as id
from connections
group by outcome, disconnect_reason
order by id
"""


@pytest.fixture(scope="module")
def asked(filled: Cluster) -> Iterator[source.Cluster]:
    """A cluster with the fleet of `store`."""
    with source.opened(filled.url()) as opened:
        yield opened


def test_stories_are_the_same(store: Store, asked: source.Cluster) -> None:
    """For one attempt of each kind: verdict, evidence, times, history, neighbours, percentiles, twin."""
    ids = store.query(ONE_OF_EACH)["id"].to_pylist()

    assert len(ids) > 4
    for id in ids:
        assert story.tell(id, asked).to_dict() == story.tell(id, store).to_dict()


def test_any_id_finds_it(store: Store, asked: source.Cluster) -> None:
    """A sessionId, an episode or trace id, the beginning of one, or text that someone pasted."""
    row = store.query("select * from connections where resumed order by start_ns limit 1").to_pylist()[0]
    for text in (
        row["session_id"],
        row["episode_id"],
        row["trace_id"],
        row["attempt_id"][:12],
        f"2026-01-01 12:00:00 ERROR [client] lost {row['session_id']}; trace={row['trace_id'].upper()}",
    ):
        assert find.resolve(text, asked) == find.resolve(text, store)


@pytest.mark.parametrize("change", [lambda id: id[:-1] + "x", lambda id: id[0], lambda id: "no such thing at all"])
def test_what_is_not_there_is_explained_alike(
    change: Callable[[str], str], store: Store, asked: source.Cluster
) -> None:
    """Nearest ids and the covered range."""
    id = change(store.query("select max(attempt_id) as id from connections")["id"][0].as_py())
    told = []
    for each in (store, asked):
        with pytest.raises(SessionNotFound) as raised:
            find.resolve(id, each)
        told.append(vars(raised.value))

    assert told[0] == told[1]


def test_capsules_are_the_same(store: Store, asked: source.Cluster) -> None:
    """To the byte, hash included."""
    for id in store.query(ONE_OF_EACH)["id"].to_pylist()[:2]:
        assert capsule.pack(id, asked).to_html() == capsule.pack(id, store).to_html()


@pytest.mark.parametrize("question", ["attempt", "steps_of", "spans_of"])
def test_the_look_up_of_an_attempt_asks_one_shard(question: str, store: Store, filled: Cluster) -> None:
    """Through either node, only the node that has the rows is asked."""
    trace_ids = store.query("select trace_id from connections order by trace_id limit 6")["trace_id"].to_pylist()
    before = sum(map(passed_on, filled.nodes))
    for node in range(len(filled.nodes)):
        with source.opened(filled.url(node=node)) as asked:
            for trace_id in trace_ids:
                assert ask(asked, question, {"trace_id": trace_id}) == ask(store, question, {"trace_id": trace_id})

    assert sum(map(passed_on, filled.nodes)) - before == len(trace_ids)
