"""The session page in a real browser with a real store behind it."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from telemetry.store.duck import Store
from tests.support import pages
from tests.support.spans import T0, attempt, table

pytestmark = pytest.mark.real

S = 1_000_000_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[pages.Server, Store]]:
    """A failed attempt among thirty that connected, its second try, one that never ended, one with a span missing,
    one with a part whose clock is astray, and sessions of ten minutes and of eight hours with heartbeats."""
    others = [attempt(number, start_ns=T0 + number * S) for number in range(100, 130)]
    failed = attempt(1, outcome="failed", error="mediaStreamFailed", detail="ice_no_pair", connecting_ms=30_000)
    long = attempt(3, live_ms=600_000, samples=6, sample={"rtt_s": 0.05, "bytes_received": 1000})
    day = attempt(4, live_ms=8 * 3_600_000, samples=2000, sample_every_ms=14_000, sample={"rtt_s": 0.05})
    again = attempt(5, start_ns=T0 + 40 * S, episode=1, attempt_number=2)
    gappy = [row for row in attempt(6) if row["name"] != "DownloadingAssets"]
    astray = [
        {**row, "start_ns": row["start_ns"] - 30 * S, "end_ns": row["end_ns"] - 30 * S}
        if row["name"] == "assets"
        else row
        for row in attempt(7)
    ]
    unfinished = attempt(2, outcome="unfinished", stops_in="DownloadingAssets")
    tables = [table(rows) for rows in (failed, unfinished, long, day, again, gappy, astray, *others)]
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

    told = server.ask("/api/sessions/attempt-0001")
    titles = tab.eval_on_selector_all(".block > h2", "titles => titles.map(title => title.textContent)")
    assert titles[:5] == [told["verdict"]["sentence"], "How it went", "WebRTC", "Held against others", "Every span"]
    assert told["verdict"]["next"] in tab.inner_text(".verdict-block")
    assert "cohort p95" in tab.inner_text(".odd")


def test_evidence_leads_to_its_span(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """A click on a fact opens the span that says it, and the address is a link to that span."""
    server, _ = served
    open_session(tab, server, "attempt-0001")
    fact = next(f for f in server.ask("/api/sessions/attempt-0001")["verdict"]["evidence"] if f["span_id"])

    tab.click(f".evidence button:has-text('{fact['fact']}')")

    assert tab.locator(f"#span-{fact['span_id']}").get_attribute("open") is not None
    assert f"span={fact['span_id']}" in tab.url
    tab.reload()
    tab.wait_for_selector(".spans[aria-busy=false]")
    assert tab.locator(f"#span-{fact['span_id']}").get_attribute("open") is not None


def test_every_span_has_every_attribute(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """The last block has one entry per stored span; opened, it has typed columns as the attributes they came from."""
    server, store = served
    open_session(tab, server, "attempt-0001")

    stored = store.query("select count(*) from spans where attempt_id = 'attempt-0001'").column(0)[0].as_py()
    assert tab.locator(".spans details").count() == stored
    tab.click(".spans summary >> nth=0")
    pages.until(tab, "document.querySelector('.spans details[open] table')")
    text = tab.inner_text(".spans details >> nth=0")
    assert all(name in text for name in ("dp.attempt.id", "error.type", "server.address", "telemetry.sdk.language"))


def test_spans_can_be_searched(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """What is typed leaves only the spans with it in a name or an attribute."""
    server, _ = served
    open_session(tab, server, "attempt-0001")

    tab.fill("input[aria-label='Find in the spans']", "ice_no_pair")

    found = tab.eval_on_selector_all(".spans summary b", "names => names.map(name => name.textContent)")
    assert "webrtc.ice" in found
    assert "queue" not in found


def test_a_reason_opens_its_meaning(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """The reason of a failure is a button that says what it means and what to do next."""
    server, _ = served
    open_session(tab, server, "attempt-0001")

    tab.click("button.pill")

    assert "the audio or video stream failed" in tab.inner_text("#meaning")
    assert tab.inner_text(".next") in tab.inner_text("#meaning")


def test_what_is_missing_is_noted_beside_the_waterfall(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """A span that should be there and is not is a visible note where it would have been drawn."""
    server, _ = served
    open_session(tab, server, "attempt-0006")

    assert "The span of DownloadingAssets is missing" in tab.inner_text(".block:has(.waterfall)")


def test_a_clock_that_is_astray_is_noted(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """A part that lies outside its step is drawn as it was recorded, and the page says that its clock differs."""
    server, _ = served
    open_session(tab, server, "attempt-0007")

    strays = tab.locator(".waterfall .row:has-text('clock astray') .label").all_inner_texts()
    assert strays == ["assets clock astray"]
    assert "assets lies 30.00 s outside its step, DownloadingAssets" in " ".join(tab.locator(".note").all_inner_texts())


def test_a_session_of_a_day_stays_light(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """Of thousands of spans the first are shown and the rest on demand; the link to a late one still opens it."""
    server, store = served
    last = store.query(
        "select span_id, count(*) over () as spans from spans where attempt_id = 'attempt-0004' "
        "order by start_ns desc limit 1"
    ).to_pylist()[0]
    open_session(tab, server, "attempt-0004", "?scale=whole")

    assert tab.evaluate("document.querySelectorAll('*').length") < 8000
    assert tab.locator(".spans details").count() == 200
    assert tab.locator(".strip .beat").count() <= 300
    tab.click(f".spans button:has-text('Show all {last['spans']:,} spans')")
    assert tab.locator(".spans details").count() == last["spans"]

    open_session(tab, server, "attempt-0004", f"?span={last['span_id']}")
    assert tab.locator(f"#span-{last['span_id']}").get_attribute("open") is not None


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
    tab.wait_for_selector("#story[aria-busy=false] .ids >> text=attempt-0003")

    assert re.fullmatch(r"/sessions/[\w-]+", tab.evaluate("location.pathname + location.search"))


def test_pasted_text_stays_out_of_addresses(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """Text without an id is answered in place; an old address that has text in it gives way to the attempt's own."""
    server, _ = served
    open_session(tab, server, "attempt-0001")
    tab.fill("input[type=search][name=id]", "ERROR of ann@example.org, and no id")
    tab.press("input[type=search][name=id]", "Enter")
    pages.until(tab, "document.querySelector('.found').textContent.includes('nothing is recorded under')")
    stayed = tab.evaluate("location.pathname")
    open_session(tab, server, quote("ERROR of ann@example.org in attempt-0003", safe=""))

    assert stayed == "/sessions/attempt-0001"
    assert tab.evaluate("location.pathname") == "/sessions/attempt-0003"


def test_an_unknown_id_says_what_the_store_covers(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """Nothing found is said with the covered time and a way to look again, never as an empty page."""
    server, _ = served
    open_session(tab, server, "no-such-attempt-at-all")

    text = tab.inner_text("#story")
    assert "Nothing is recorded under this id" in text
    assert text.lower().count("the store covers") == 1
    assert tab.locator("button:has-text('look again')").count() == 1


def test_an_address_with_a_stray_percent_sign_is_unknown_like_any_other(
    tab: Any, served: tuple[pages.Server, Store]
) -> None:
    """What is no proper address is looked up as it stands."""
    server, _ = served
    open_session(tab, server, "100%")

    assert "Nothing is recorded under this id" in tab.inner_text("#story")


def test_an_id_older_than_the_store_is_told_from_an_unknown_one(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """An id that holds a time before the store begins has expired; so has any, when one says that it was then."""
    server, _ = served
    open_session(tab, server, "01700000-0000-7000-8000-000000000000")
    assert tab.inner_text("h1") == "It is from before what the store has"
    assert "retention" in tab.inner_text("#story")

    open_session(tab, server, "no-such-attempt-at-all")
    tab.fill("input[type=datetime-local]", "2026-01-01T12:00:00")
    tab.press("input[type=datetime-local]", "Enter")
    pages.until(tab, "document.querySelector('h1').textContent === 'It is from before what the store has'")


def test_an_attempt_that_is_still_arriving_shows_by_itself(tab: Any, tmp_path: Path) -> None:
    """A log line of this moment is said to be on its way; when its spans arrive, the page tells them unasked."""
    with pages.serving(tmp_path / "arriving.duckdb", table(attempt(1))) as (server, store):
        tab.clock.install()
        moment = "2026-09-21 15:00:00Z"
        open_session(tab, server, f"{moment} ERROR connect id=attempt-0002; gave up")
        assert tab.inner_text("h1") == "Its telemetry has not arrived yet"

        store.commit([table(attempt(2, start_ns=T0 + 2800 * S, outcome="failed", error="noScene", detail="busy"))])
        tab.clock.fast_forward(2000)

        tab.wait_for_selector(".verdict-block")
        assert "attempt-0002" in tab.inner_text("h1")


def test_neighbours_are_a_click_away(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """The twin and the other tries are links to their pages; the hour's failures are the overview of that hour."""
    server, _ = served
    open_session(tab, server, "attempt-0001")
    twin = server.ask("/api/sessions/attempt-0001")["twin"]["attempt_id"]
    assert tab.locator(f"h3:has-text('Its twin') ~ p a[href='/sessions/{twin}']").count() == 1
    assert ["webrtc.dtls", "not begun"] in tab.eval_on_selector_all(
        ".compare tbody tr", "rows => rows.map(row => [...row.cells].slice(0, 2).map(cell => cell.textContent))"
    )

    tab.click("a:has-text('What else failed in that hour')")
    pages.quiet(tab)
    assert tab.locator("#recent tbody tr").count() == 1
    assert tab.get_attribute("#recent td.long a", "href") == "/sessions/attempt-0001"

    tab.go_back()
    tab.click(".others a:has-text('attempt-0005')")
    tab.wait_for_selector(".spans[aria-busy=false]")
    assert "attempt-0005" in tab.inner_text("h1")


def test_it_prints_as_a_report(tab: Any, served: tuple[pages.Server, Store]) -> None:
    """On paper the verdict, the times and the neighbours stand on white; what one would click is left out."""
    server, _ = served
    open_session(tab, server, "attempt-0001", "?theme=dark")

    tab.emulate_media(media="print")

    assert all(
        tab.locator(part).first.is_visible() for part in (".sentence", ".next", ".evidence", ".waterfall", ".known")
    )
    assert not any(tab.locator(part).first.is_visible() for part in ("#top", ".actions", ".spans", ".strip"))
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.querySelector('.sentence')).color") == "rgb(25, 29, 35)"
    assert tab.pdf()[:5] == b"%PDF-"


def test_times_can_be_local(browser: Any, served: tuple[pages.Server, Store]) -> None:
    """Local times are those of the reader's own zone, which is named."""
    server, _ = served
    tab = browser.new_page(timezone_id="Asia/Tokyo")
    open_session(tab, server, "attempt-0001", "?times=local")

    assert tab.inner_text(".ladder li:first-child time") == "2026-09-21 23:13:20.000"
    assert tab.locator("button:has-text('Local time (Asia/Tokyo)')").get_attribute("aria-pressed") == "true"
    tab.close()


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
    told = server.ask("/api/sessions/attempt-0001")["verdict"]
    assert told["sentence"] in copied
    assert told["next"] in copied
    assert f"{server.url}/sessions/attempt-0001" in copied
