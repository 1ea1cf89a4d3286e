"""The session page in a real browser with a real store behind it."""

import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from telemetry.store.duck import Store
from tests.support import pages
from tests.support.spans import T0, attempt, table

pytestmark = [pytest.mark.real, pytest.mark.browser]

S = 1_000_000_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[pages.Server, Store]]:
    """A failed attempt among thirty that connected, one that never ended, and a long session with heartbeats."""
    others = [attempt(number, start_ns=T0 + number * S) for number in range(100, 130)]
    failed = attempt(1, outcome="failed", error="mediaStreamFailed", detail="ice_no_pair", connecting_ms=30_000)
    long = attempt(3, live_ms=600_000, samples=6, sample={"rtt_s": 0.05, "bytes_received": 1000})
    tables = [
        table(rows) for rows in (failed, attempt(2, outcome="unfinished", stops_in="DownloadingAssets"), long, *others)
    ]
    with pages.serving(tmp_path_factory.mktemp("session") / "store.duckdb", *tables) as served:
        yield served


def open_session(tab: Any, server: pages.Server, id: str, more: str = "") -> None:
    """Open a session's page and wait until it and its spans are there."""
    tab.goto(f"{server.url}/sessions/{id}{more}")
    tab.wait_for_selector("#story[aria-busy=false]")
    if tab.locator(".spans").count():
        tab.wait_for_selector(".spans[aria-busy=false]")


def test_the_five_blocks_stand_in_their_order(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """Verdict, times, media, others, spans: the verdict's sentence is the server's own."""
    server, _ = served
    open_session(tab, server, "attempt-0001")

    told = httpx.get(f"{server.url}/api/sessions/attempt-0001").json()
    titles = tab.eval_on_selector_all(".block > h2", "titles => titles.map(title => title.textContent)")
    assert titles[:5] == [told["verdict"]["sentence"], "How it went", "WebRTC", "Held against others", "Every span"]
    assert told["verdict"]["next"] in tab.inner_text(".verdict-block")
    assert "cohort p95" in tab.inner_text(".odd")


def test_evidence_leads_to_its_span(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """A click on a fact opens the span that says it, and the address is a link to that span."""
    server, _ = served
    open_session(tab, server, "attempt-0001")
    fact = next(
        f for f in httpx.get(f"{server.url}/api/sessions/attempt-0001").json()["verdict"]["evidence"] if f["span_id"]
    )

    tab.click(f".evidence button:has-text('{fact['fact']}')")

    assert tab.locator(f"#span-{fact['span_id']}").get_attribute("open") is not None
    assert f"span={fact['span_id']}" in tab.url
    tab.reload()
    tab.wait_for_selector(".spans[aria-busy=false]")
    assert tab.locator(f"#span-{fact['span_id']}").get_attribute("open") is not None


def test_every_span_has_every_attribute(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """The last block has one entry per stored span, with typed columns as the attributes they came from."""
    server, store = served
    open_session(tab, server, "attempt-0001")

    stored = store.query("select count(*) from spans where attempt_id = 'attempt-0001'").column(0)[0].as_py()
    assert tab.locator(".spans details").count() == stored
    text = tab.evaluate("document.querySelector('.spans').textContent")
    assert all(name in text for name in ("dp.attempt.id", "error.type", "server.address", "telemetry.sdk.language"))


def test_what_never_ended_is_drawn_open(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """An unfinished step has an open bar and says that it was not seen to end."""
    server, _ = served
    open_session(tab, server, "attempt-0002")

    assert tab.locator(".waterfall .bar.open").count() >= 1
    assert "not seen to end" in tab.inner_text(".waterfall")


def test_a_long_session_has_two_scales(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """On the connecting scale the steps fill the width; on the whole session's they are a sliver."""
    server, _ = served
    open_session(tab, server, "attempt-0003")
    step = ".waterfall .step:first-child .bar"
    before = tab.locator(step).bounding_box()["width"]

    tab.click("button:has-text('Whole session')")

    assert tab.locator(step).bounding_box()["width"] < before / 50
    assert "scale=whole" in tab.url
    assert tab.locator(".waterfall .session .bar").count() == 1
    assert "50 ms" in tab.inner_text(".sparks")


def test_marks_of_the_cohort_stand_on_the_bars(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """Each step that others completed carries their p50 and p95, with n stated."""
    server, _ = served
    open_session(tab, server, "attempt-0003")

    assert tab.locator(".waterfall .tick.p95").count() >= 3
    assert "of 3" in tab.inner_text(".waterfall")


@pytest.mark.parametrize(
    "pasted",
    [
        "session-0003",
        f"{3:032x}",
        "http://127.0.0.1:4380/sessions/attempt-0003?x=1",
        "2026-01-01 12:00 ERROR connect id=attempt-0003; gave up",
    ],
)
def test_the_search_box_takes_anything(tab: Any, served: tuple[pages.Server, Store], pasted: str) -> None:
    """A sessionId, a trace id, a link or a log line opens the attempt that it names."""
    server, _ = served
    tab.goto(f"{server.url}/sessions/attempt-0001")
    tab.wait_for_selector("#story[aria-busy=false]")

    tab.fill("input[type=search][name=id]", pasted)
    tab.press("input[type=search][name=id]", "Enter")
    tab.wait_for_selector("#story[aria-busy=false] .ids")

    assert "attempt-0003" in tab.inner_text(".ids")


def test_an_unknown_id_says_what_the_store_covers(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """Nothing found is said with the covered time and a way to look again, never as an empty page."""
    server, _ = served
    open_session(tab, server, "no-such-attempt-at-all")

    text = tab.inner_text("#story")
    assert "Nothing is recorded under this id" in text
    assert "The store covers" in text
    assert tab.locator("button:has-text('look again')").count() == 1


def test_times_can_be_relative(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """The choice of times rewrites every time on the page and stays in the address."""
    server, _ = served
    open_session(tab, server, "attempt-0001")

    tab.click("button:has-text('Since start')")

    assert tab.inner_text(".ladder li:first-child time") == "+0 ms"
    assert "times=relative" in tab.url


@pytest.mark.parametrize("name", ["Jaeger", "Chrome trace", "OTLP"])
def test_the_trace_can_be_taken_along(tab: Any, served: tuple[pages.Server, Store], name: str) -> None:
    """Each download is the whole trace in a form that another viewer reads."""
    server, _ = served
    open_session(tab, server, "attempt-0001")

    with tab.expect_download() as download:
        tab.click(f".actions a:has-text('{name}')")

    body = json.loads(Path(download.value.path()).read_text())
    spans = {
        "Jaeger": lambda: body["data"][0]["spans"],
        "Chrome trace": lambda: [event for event in body["traceEvents"] if event["ph"] != "M"],
        "OTLP": lambda: [span for resource in body["resourceSpans"] for span in resource["scopeSpans"][0]["spans"]],
    }[name]()
    assert len(spans) == tab.locator(".spans details").count()


def test_the_capsule_can_be_taken_along(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """The capsule is a page of its own that names the attempt and its verdict, and asks nobody for anything."""
    server, _ = served
    open_session(tab, server, "attempt-0001")
    sentence = tab.inner_text(".verdict-block .sentence")

    with tab.expect_download() as download:
        tab.click(".actions a:has-text('Capsule')")

    assert download.value.suggested_filename == "attempt-0001.capsule.html"
    page = Path(download.value.path()).read_text("utf-8")
    assert "attempt-0001" in page
    assert html.escape(sentence, quote=False) in page
    assert "<script src" not in page


def test_the_ticket_text_holds_what_support_needs(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """The copied text has the sentence, the next action, the ids and a link."""
    server, _ = served
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_session(tab, server, "attempt-0001")

    tab.click("button:has-text('Copy for the ticket')")
    tab.wait_for_selector("button:has-text('Copied')")

    copied = tab.evaluate("navigator.clipboard.readText()")
    told = httpx.get(f"{server.url}/api/sessions/attempt-0001").json()["verdict"]
    assert told["sentence"] in copied
    assert told["next"] in copied
    assert f"{server.url}/sessions/attempt-0001" in copied
