"""The files of the pages as they travel, asked through ASGI."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from telemetry import reports, settings
from telemetry.store.duck import Store
from telemetry.web.app import pages_app

DASHBOARDS = settings.data_folder("dashboards")
PAGES = {"/": "page.js", "/sessions/x": "session.js"}
"""Each page's path, and the module that draws it."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path_factory.mktemp("store") / "store.duckdb") as store:
        yield store


@pytest.fixture
def client(store: Store) -> httpx.AsyncClient:
    """A client of the application."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=pages_app(store)), base_url="http://127.0.0.1")


def imported(module: Path) -> set[Path]:
    """A module and all that it imports, and so on."""
    names = re.findall(r'^import .*"(\..*)";$', module.read_text("utf-8"), re.MULTILINE)
    return {module}.union(*(imported((module.parent / name).resolve()) for name in names))


@pytest.mark.parametrize(("path", "entry"), PAGES.items())
async def test_a_page_names_all_that_it_loads(client: httpx.AsyncClient, path: str, entry: str) -> None:
    """A page names each module it needs, so that none waits for another, and everything it names is there for good."""
    answer = await client.get(path)
    named = re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text)
    needed = {str(module.relative_to(DASHBOARDS / "static")) for module in imported(DASHBOARDS / "static" / entry)}
    scripts = {address.split("/", 3)[3] for address in named if address.endswith(".js")}

    assert needed == scripts - {"theme.js", "vendor/uPlot.iife.min.js"}
    for address in named:
        loaded = await client.get(address)
        assert loaded.status_code == 200
        assert "immutable" in loaded.headers["cache-control"]
    assert answer.headers["cache-control"] == "private, no-cache"


async def test_an_address_of_another_version_leads_to_the_present_file(client: httpx.AsyncClient) -> None:
    """A page that was loaded before the server's update gets the file that there is, and does not keep it for good."""
    moved = await client.get("/static/0123456789ab/page.js")
    missing = await client.get("/static/0123456789ab/nothing.js")
    outside = await client.get("/static/0123456789ab/..%2foverview.toml")

    assert moved.status_code == 307
    assert (await client.get(moved.headers["location"])).headers["content-type"].startswith("text/javascript")
    assert missing.status_code == outside.status_code == 404


async def test_a_page_s_description_has_its_reports(client: httpx.AsyncClient) -> None:
    """One answer holds the panels and the reports behind them, with parameters and SQL."""
    told = (await client.get("/api/pages/overview")).json()

    described = {report["name"]: report for report in told["reports"]}
    assert set(described) == {panel["report"] for panel in told["panels"]}
    for name, report in described.items():
        assert report["sql"] == reports.find(name).sql
        assert [param["name"] for param in report["params"]] == [param.name for param in reports.find(name).params]


async def test_the_story_is_asked_for_with_the_page(client: httpx.AsyncClient) -> None:
    """A session's page names its story by the very path and query of the page, whatever a stranger wrote there."""
    answer = await client.get("/sessions/%3Cscript%3E%22%2F..?about=2026-01-01T00:00:00Z")

    story = "/api/sessions/%3Cscript%3E%22%2F..?about=2026-01-01T00:00:00Z"
    assert answer.headers["link"] == f"<{story}>; rel=preload; as=fetch; crossorigin"
