"""The pages and the query API, asked through ASGI."""

import asyncio
import base64
import hashlib
import hmac
import re
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route
from starlette.types import Message

from telemetry import formats, reports, settings
from telemetry.errors import StoreError
from telemetry.store.duck import Store
from telemetry.support import story
from telemetry.support.asking import Source
from telemetry.web import openapi, upkeep
from telemetry.web.app import Asking, pages_app
from tests.support.spans import T0, attempt, table

SINCE = {"since": str(T0 - 1), "until": str(T0 + 10**12)}
"""A time range around the attempts of these tests, whatever the clock says."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with one attempt that connected and one that failed."""
    with Store.open(tmp_path_factory.mktemp("store") / "store.duckdb") as store:
        store.commit([table(attempt(1), attempt(2, outcome="failed", error="noScene", detail="busy"))])
        yield store


@asynccontextmanager
async def asking(store: Store, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application."""
    transport = httpx.ASGITransport(app=pages_app(store, **settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


async def test_the_menu_has_every_report(store: Store) -> None:
    """`/api/reports` names each report with its question, its typed parameters and its SQL."""
    async with asking(store) as client:
        menu = (await client.get("/api/reports")).json()

    assert [entry["name"] for entry in menu] == list(reports.catalogue())
    assert all(entry["question"].endswith("?") and "select" in entry["sql"] for entry in menu)


@pytest.mark.parametrize("name", reports.catalogue())
async def test_every_report_answers(store: Store, name: str) -> None:
    """A report over HTTP has the same columns and rows as the same report asked directly."""
    known = {param.name for param in reports.find(name).params}
    params = {key: value for key, value in {**SINCE, "id": "attempt-0002"}.items() if key in known}
    direct = reports.execute(name, params, store)

    async with asking(store) as client:
        answer = await client.get(f"/api/reports/{name}", params=params)
        arrow = await client.get(f"/api/reports/{name}", params={**params, "format": "arrow"})

    assert answer.status_code == 200
    assert [column["name"] for column in answer.json()["columns"]] == direct.column_names
    assert answer.json()["rows"] == formats.to_rows(direct)
    assert formats.from_arrow(arrow.content).equals(direct)


@pytest.mark.parametrize("format", ["csv", "parquet", "json", "arrow"])
async def test_formats(store: Store, format: str) -> None:
    """Each format is announced by its media type; what is not for reading here is a download with a name."""
    async with asking(store) as client:
        answer = await client.get("/api/reports/recent", params={**SINCE, "format": format})

    assert answer.headers["content-type"] == formats.MEDIA_TYPES[format]
    if format != "json":
        assert answer.headers["content-disposition"] == f'attachment; filename="recent.{format}"'


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/api/reports/recnt", 404, "UnknownReport"),
        ("/api/reports/recent?nonsense=1", 400, "BadParameter"),
        ("/api/reports/recent?since=yesterday-ish", 400, "BadParameter"),
        ("/api/reports/recent?format=xml", 400, "HTTPException"),
        ("/api/reports/..%2fschema%2fspans", 404, "HTTPException"),
        ("/api/sessions/nothing-like-this", 404, "SessionNotFound"),
        ("/api/pages/..%2f..%2fpyproject", 404, "HTTPException"),
        ("/api/pages/nothing", 404, "HTTPException"),
        ("/nothing", 404, "HTTPException"),
    ],
)
async def test_errors_are_told_in_json(store: Store, path: str, status: int, kind: str) -> None:
    """Whatever cannot be answered has a status, a type and a message, never a traceback."""
    async with asking(store) as client:
        answer = await client.get(path)

    assert answer.status_code == status
    assert answer.json()["error"]["type"] == kind
    assert answer.json()["error"]["message"]


async def test_nearest_names_are_told(store: Store) -> None:
    """A report that is nearly right is told what it may have meant."""
    async with asking(store) as client:
        answer = await client.get("/api/reports/recnt")

    assert "recent" in answer.json()["error"]["nearest"]


async def test_sql_cannot_be_sent(store: Store) -> None:
    """A parameter is a value and never becomes SQL; another method than GET is refused."""
    async with asking(store) as client:
        hostile = await client.get("/api/reports/recent", params={**SINCE, "region": "x' or 1=1 --"})
        posted = await client.post("/api/reports/recent", content="select 1")

    assert hostile.json()["rows"] == []
    assert posted.status_code == 405


async def test_a_session_is_told_as_json(store: Store) -> None:
    """`/api/sessions/ID` is the story, by any id of it."""
    async with asking(store) as client:
        answer = await client.get("/api/sessions/attempt-0002")

    assert answer.status_code == 200
    assert "attempt-0002" in answer.text
    assert "verdict" in answer.json()


async def test_an_unknown_page(store: Store) -> None:
    """A browser gets a page with a way home, a program an error that names the description."""
    async with asking(store) as client:
        page = await client.get("/nosuch", headers={"Accept": "text/html,*/*"})
        answer = await client.get("/api/nosuch")

    assert (page.status_code, answer.status_code) == (404, 404)
    assert '<a href="/">' in page.text
    assert "/api/openapi.json" in answer.json()["error"]["message"]


async def test_an_id_is_found_in_a_text(store: Store) -> None:
    """A pasted line is sent as a body, for an address would keep all of it; a whole log is refused."""
    async with asking(store) as client:
        found = await client.post("/api/find", content="12:00 ERROR user=ann@example.org id=attempt-0002; gave up")
        missing = await client.post("/api/find", content="ERROR nothing of ours")
        whole_log = await client.post("/api/find", content=b"x" * 70_000)
        by_get = await client.get("/api/find")

    assert found.json() == {"kind": "attempt", "id": "attempt-0002", "attempt_id": "attempt-0002"}
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "SessionNotFound")
    assert (whole_log.status_code, by_get.status_code) == (413, 405)


async def test_verdicts_of_a_list_are_sentences(store: Store) -> None:
    """Each attempt of a list has the sentence that its story begins with; unknown ones are left out."""
    asked = {"attempt_id": ["attempt-0001", "attempt-0002", "nobody"], "since_ns": T0, "until_ns": T0 + 10**12}
    async with asking(store) as client:
        verdicts = (await client.get("/api/verdicts", params=asked)).json()
        story = (await client.get("/api/sessions/attempt-0002")).json()
        refused = await client.get("/api/verdicts", params={"attempt_id": "attempt-0001"})

    assert list(verdicts) == ["attempt-0001", "attempt-0002"]
    assert verdicts["attempt-0002"] == story["verdict"]["sentence"]
    assert refused.status_code == 400
    assert "since_ns" in refused.json()["error"]["message"]


async def test_what_is_not_found_is_said_with_the_time_that_was_given(store: Store) -> None:
    """`about` is when it happened: the answer has it beside the time that the store covers."""
    async with asking(store) as client:
        expired = await client.get("/api/sessions/nobody", params={"about": "2026-01-01T00:00:00"})
        refused = await client.get("/api/sessions/nobody", params={"about": "yesterday"})

    assert expired.status_code == 404
    assert expired.json()["error"]["about_ns"] == 1_767_225_600 * 10**9 < expired.json()["error"]["since_ns"]
    assert refused.status_code == 400


async def test_every_answer_is_guarded(store: Store) -> None:
    """Pages, modules, answers and errors carry a policy that allows no inline script or style and no other origin."""
    async with asking(store) as client:
        for path in ("/", "/sessions/x", "/static/any/page.js", "/api/reports", "/nothing"):
            answer = await client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in answer.headers


async def test_pages_hold_no_inline_script_or_style() -> None:
    """The pages obey the policy that they are sent with."""
    for page in settings.data_folder("dashboards").glob("*.html"):
        text = page.read_text()
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", text), page.name
        assert not re.search(r"(?:src|href)=\"https?:", text), page.name


async def test_every_panel_names_a_report_that_exists(store: Store) -> None:
    """A declarative page refers only to reports, and to parameters, that there are."""
    async with asking(store) as client:
        for page in settings.data_folder("dashboards").glob("*.toml"):
            told = (await client.get(f"/api/pages/{page.stem}")).json()
            assert told["title"]
            assert told["notice"]
            for panel in told["panels"]:
                known = {param.name for param in reports.find(panel["report"]).params}
                assert {*panel.get("params", {}), *panel.get("only", {})} <= known


async def test_answers_are_not_kept(store: Store) -> None:
    """Data is true only now, and is never cached."""
    async with asking(store) as client:
        assert (await client.get("/api/reports")).headers["cache-control"] == "no-store"


async def test_answers_are_compressed(store: Store) -> None:
    """An answer of some length travels compressed to whoever understands it."""
    async with asking(store) as client:
        answer = await client.get("/api/reports", headers={"Accept-Encoding": "gzip"})

    assert answer.headers["content-encoding"] == "gzip"


def scope(method: str, path: str) -> dict[str, Any]:
    """Of a request, as a server gives it to an application."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }


async def test_who_leaves_before_the_question_is_whole(store: Store) -> None:
    """Who hangs up in the middle of a pasted text is no error, which would fill the log."""
    heard = iter(({"type": "http.request", "body": b"attempt-", "more_body": True}, {"type": "http.disconnect"}))
    sent: list[Message] = []

    async def receive() -> Message:
        return next(heard)

    async def send(message: Message) -> None:
        sent.append(message)

    await pages_app(store)(scope("POST", "/api/find"), receive, send)

    assert sent[0]["status"] == 499


async def test_a_backup_that_nobody_takes(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asks for a backup and takes nothing of it does not keep its copy on the store's disk."""
    monkeypatch.setattr(upkeep, "_STALLED_S", 0.05)
    copies: list[Path] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            copies.extend(store.path.parent.glob(".*backup-*"))
            await asyncio.Event().wait()

    await pages_app(store, more=upkeep.routes(store))(scope("GET", "/api/store/backup"), receive, send)

    assert len(copies) == 1
    assert not [*store.path.parent.glob(".*backup-*")]
    assert "took next to nothing" in caplog.text


@pytest.mark.parametrize("fails", [False, True])
async def test_copies_are_removed_beside_the_event_loop(
    store: Store, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Removing a large copy takes seconds, in which requests are answered."""
    threads: list[threading.Thread] = []

    class Noted(tempfile.TemporaryDirectory[str]):
        def cleanup(self) -> None:
            threads.append(threading.current_thread())
            super().cleanup()

    def fail(*_: Any) -> None:
        raise StoreError("it failed")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Noted)
    if fails:
        monkeypatch.setattr(upkeep, "backup", fail)
    async with asking(store, more=upkeep.routes(store)) as client:
        answer = await client.get("/api/store/backup")

    assert answer.is_success != fails
    assert threads
    assert threading.main_thread() not in threads


async def test_backups_are_sent_as_they_are(store: Store) -> None:
    """A backup is not compressed on its way, which would take long and keep a core busy."""
    async with asking(store, more=upkeep.routes(store)) as client:
        answer = await client.get("/api/store/backup", headers={"Accept-Encoding": "gzip"})

    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers
    assert int(answer.headers["content-length"]) == len(answer.content) > 100_000


async def test_without_the_token_nothing_is_told(store: Store) -> None:
    """Where there are tokens, any one of them opens the door, as a bearer or as a browser's password; none does not."""
    basic = base64.b64encode(b"anyone:second").decode()
    async with asking(store, tokens=("first", "second")) as client:
        for path in ("/", "/static/any/page.js", "/api/reports", "/api/reports/recent", "/api/sessions/x"):
            refused = await client.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic ")
            assert "first" not in refused.text
            wrong = await client.get(path, headers={"Authorization": "Bearer third"})
            assert wrong.status_code == 401
        for authorization in ("Bearer first", "Bearer second", f"Basic {basic}"):
            admitted = await client.get("/api/reports", headers={"Authorization": authorization})
            assert admitted.status_code == 200
        for garbage in ("Basic ####", "Basic", "", "Bearer", f"Bearer {'x' * 5000}", "Negotiate first"):
            assert (await client.get("/api/reports", headers={"Authorization": garbage})).status_code == 401
        assert (await client.get("/api/health")).json()["status"] == "ok"


async def test_the_time_of_a_refusal_tells_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown is compared by digest, so that not even a token's length can be measured."""
    lengths = set()
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: lengths.add((len(a), len(b))) or a == b)
    async with asking(store, tokens=("a token",)) as client:
        await client.get("/api/reports", headers={"Authorization": "Bearer x"})

    assert lengths == {(32, 32)}


async def test_another_host_name_is_refused(store: Store) -> None:
    """A page elsewhere that rebinds its own name to this address gets no answer."""
    async with asking(store) as client:
        assert (await client.get("/api/reports", headers={"Host": "evil.example"})).status_code == 400
        assert (await client.get("/api/reports", headers={"Host": "localhost:4380"})).status_code == 200


async def test_the_query_api_describes_itself(store: Store) -> None:
    """The OpenAPI description has a path for every report, with its parameters."""
    async with asking(store) as client:
        described = (await client.get("/api/openapi.json")).json()

    for report in reports.catalogue().values():
        parameters = described["paths"][f"/api/reports/{report.name}"]["get"]["parameters"]
        assert [parameter["name"] for parameter in parameters] == [*(param.name for param in report.params), "format"]


def test_the_description_has_every_path(store: Store) -> None:
    """What can be asked over HTTP is described, and what is described can be asked."""
    served = {
        re.sub(r":\w+}", "}", route.path)
        for route in pages_app(store, more=upkeep.routes(store)).routes
        if isinstance(route, Route)
    }
    described = set(openapi.description(reports.catalogue())["paths"])
    pages = {"/", "/sessions/{id}", "/static/{version}/{name}"}

    assert served - pages - {"/api/reports/{name}"} == {path for path in described if path not in by_report()}
    assert by_report() <= described


def by_report() -> set[str]:
    """The paths of single reports."""
    return {f"/api/reports/{name}" for name in reports.catalogue()}


def test_what_comes_from_elsewhere_is_what_was_published() -> None:
    """The vendored files are, byte for byte, those of the checksums beside them."""
    folder = settings.data_folder("dashboards") / "static" / "vendor"
    sums = dict(reversed(line.split(maxsplit=1)) for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines())

    assert set(sums) == {path.name for path in folder.iterdir()} - {"README.md", "SHA256SUMS"}
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected, name


async def test_the_store_is_described(store: Store) -> None:
    """`/api/store` says what the store holds."""
    async with asking(store, info=lambda: {"path": Path("x"), "spans": 1}) as client:
        assert (await client.get("/api/store")).json() == {"path": "x", "spans": 1}
    async with asking(store) as client:
        assert (await client.get("/api/store")).status_code == 404


def test_who_leaves_late_ends_nobody_elses_query(tmp_path: Path) -> None:
    """A connection that has answered goes to the next who asks; leaving after that does not end what it runs then."""
    with Store.open(tmp_path / "s.duckdb") as store:
        asking = Asking(store)
        assert asking.answer(lambda: 1) == 1

        asking.cancel()

        assert store.query("select 2 as n").to_pylist() == [{"n": 2}]
        with pytest.raises(StoreError, match="nobody waits"):
            asking.answer(lambda: 3)


async def test_a_story_is_told_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives while a story is told is in the next one, and in no part of this one."""

    class Told:
        def __init__(self, counts: list[int]) -> None:
            self._counts = counts

        def to_dict(self) -> dict[str, Any]:
            return {"counts": self._counts}

    with Store.open(tmp_path / "s.duckdb") as store:
        arriving = iter(range(1, 10))

        def tell(id: str, source: Source, *, about_ns: int | None) -> Told:
            counts = []
            for _ in range(2):
                counts.append(source.query("select count(*) from connections").column(0)[0].as_py())
                store.commit([table(attempt(next(arriving)))])
            return Told(counts)

        monkeypatch.setattr(story, "tell", tell)
        async with asking(store) as client:
            told = [(await client.get("/api/sessions/any")).json()["counts"] for _ in range(2)]

    assert told == [[0, 0], [2, 2]]
