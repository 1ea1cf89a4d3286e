"""Browsers as senders: the JavaScript SDK in headless Chromium, against the receiver and a real store."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from telemetry.errors import Overloaded
from telemetry.store.duck import Store
from tests.receiver.test_javascript import stored_alike, storing
from tests.support import javascript
from tests.support.otlp import request, span, to_json
from tests.support.pages import CHROMIUM, FLAGS, MISSING
from tests.support.receiving import KeptSpans, receiving

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not javascript.READY, reason=javascript.MISSING),
    pytest.mark.skipif(CHROMIUM is None, reason=MISSING),
]


@asynccontextmanager
async def site() -> AsyncIterator[str]:
    """A web site of another origin than the receiver, whose pages carry the SDK."""
    script = await javascript.bundle()

    async def page(_: Any) -> HTMLResponse:
        return HTMLResponse(f"<!doctype html><title>kiosk</title><script>{script}</script>")

    app = Starlette(routes=[Route("/", page), Route("/next", lambda _: HTMLResponse("<title>next</title>"))])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


@asynccontextmanager
async def tab(origin: str, *flags: str) -> AsyncIterator[Any]:
    """A tab that shows the site."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        page = await browser.new_page()
        await page.goto(origin)
        yield page
        await browser.close()


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer a-secret"}], ids=["no token", "token"])
@pytest.mark.parametrize("exporter", ["json", "protobuf"])
async def test_sdk_in_a_page(tmp_path: Path, exporter: str, headers: dict[str, str]) -> None:
    """A page of an origin that is allowed sends after a preflight, and every span is found again."""
    tokens = ["a-secret"] if headers else []
    with Store.open(tmp_path / "s.duckdb") as store:
        async with site() as origin, storing(store, origins=[origin], tokens=tokens) as ports, tab(origin) as page:
            url = f"http://127.0.0.1:{ports.http}/v1/traces"
            told = await page.evaluate(
                "asked => send(asked)", {"exporter": exporter, "url": url, "spans": 3, "headers": headers}
            )

        assert told["succeeded"], told["error"]
        assert stored_alike(store, told, exporter)


async def test_page_of_another_origin() -> None:
    """A page that is not allowed fails at its preflight, so nothing is sent."""
    writer = KeptSpans()
    async with site() as origin, receiving(writer, origins=["https://kiosk.example"]) as ports, tab(origin) as page:
        url = f"http://127.0.0.1:{ports.http}/v1/traces"
        told = await page.evaluate(
            """async url => {
              try { await fetch(url, {method: "POST", body: "{}", headers: {"Content-Type": "application/json"}}); }
              catch (error) { return String(error); }
            }""",
            url,
        )

    assert "Failed to fetch" in told
    assert writer.tables == []


async def test_errors_can_be_read() -> None:
    """A page reads the Status of a refusal and the seconds of Retry-After, as the SDK in it must."""
    writer = KeptSpans(Overloaded("busy", retry_after_s=2))
    async with site() as origin, receiving(writer, origins=[origin]) as ports, tab(origin) as page:
        status, seconds, said = await page.evaluate(
            """async ([url, body]) => {
              const answer = await fetch(url, {method: "POST", body, headers: {"Content-Type": "application/json"}});
              return [answer.status, answer.headers.get("Retry-After"), await answer.json()];
            }""",
            [f"http://127.0.0.1:{ports.http}/v1/traces", to_json(request(span())).decode()],
        )

    assert (status, seconds) == (503, "2")
    assert said["message"] == "busy"


@pytest.mark.parametrize("by", ["beacon", "keepalive"])
async def test_spans_of_a_page_that_is_left(by: str) -> None:
    """What a page sends in the moment in which it is left arrives, with nobody there to read the answer."""
    writer = KeptSpans()
    async with site() as origin, receiving(writer, origins=[origin]) as ports, tab(origin) as page:
        url = f"http://127.0.0.1:{ports.http}/v1/traces"
        await page.evaluate("asked => sendWhenLeft(asked)", {"by": by, "url": url, "spans": 2})
        await page.goto(f"{origin}/next")
        async with asyncio.timeout(20):
            await writer.entered.wait()

    assert writer.names == [by, by]


async def test_page_of_a_public_network() -> None:
    """A page that the browser holds for a public one may send to a receiver on its own machine, if its user agrees."""
    writer = KeptSpans()
    async with site() as origin, receiving(writer, origins=[origin]) as ports:
        public = f"--ip-address-space-overrides={origin.removeprefix('http://')}=public"
        async with tab(origin, public) as page:
            await page.context.grant_permissions(["local-network-access"])
            url = f"http://127.0.0.1:{ports.http}/v1/traces"
            told = await page.evaluate(
                "asked => send(asked)", {"exporter": "json", "url": url, "spans": 1, "headers": {}}
            )

    assert told["succeeded"], told["error"]
    assert writer.names == ["json"]
