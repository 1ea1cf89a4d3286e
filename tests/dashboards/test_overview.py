"""The overview in a real browser with a real store behind it."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pyarrow.parquet
import pytest

from telemetry import formats, reports
from telemetry.store.duck import Store
from tests.support import pages
from tests.support.spans import T0, attempt, table

pytestmark = [pytest.mark.real, pytest.mark.browser]

RANGE = f"since={pages.SINCE}&until={pages.UNTIL}"


def overview(tab: Any, server: pages.Server, more: str = "", span: str = RANGE) -> None:
    """Open the overview and wait until every panel has its answer."""
    tab.goto(f"{server.url}/?{span}{more}")
    quiet(tab)


def until(tab: Any, expression: str, within_s: float = 60.0) -> None:
    """Wait until an expression holds in the page; the driver's own way to wait is refused by the pages' policy."""
    end = time.monotonic() + within_s
    while not tab.evaluate(expression):
        assert time.monotonic() < end, f"it never came to be that {expression}"
        tab.wait_for_timeout(50)


def quiet(tab: Any) -> None:
    """Wait until no panel waits."""
    tab.wait_for_selector("#panels[aria-busy=false]")
    until(
        tab,
        "![...document.querySelectorAll('.panel')].some(p => p.ariaBusy === 'true' || p.querySelector('.skeleton'))",
    )


def answer(store: Store, name: str, **params: str) -> list[dict[str, Any]]:
    """What a report answers for the fleet's range, asked without the pages."""
    asked = {"since": pages.SINCE, "until": pages.UNTIL, **params}
    return formats.to_rows(reports.execute(name, asked, store))


def query(tab: Any) -> dict[str, str]:
    """The state in the address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(tab.url).query).items()}


def rows_of(tab: Any, panel: str) -> list[list[str]]:
    """The cells of a panel's table."""
    cells: list[list[str]] = tab.eval_on_selector_all(
        f"#{panel} tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return cells


def test_every_panel_draws_what_its_report_answers(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """Each declared panel is there, has as many rows as its report, and states unit, denominator and n."""
    server, store = fleet
    declared = httpx.get(f"{server.url}/api/pages/overview").json()["panels"]
    overview(tab, server)

    for panel in declared:
        known = {param.name for param in reports.find(panel["report"]).params}
        params = {name: value for name, value in {"bucket": "1h", **panel.get("params", {})}.items() if name in known}
        rows = answer(store, panel["report"], **params)
        section = tab.locator(f"#{panel['id']}")
        assert section.get_attribute("data-rows") == str(len(rows)), panel["id"]
        assert section.locator(".error").count() == 0, panel["id"]
        assert "n = " in section.locator(".facts").inner_text(), panel["id"]
        assert section.locator("h2").inner_text().strip(), panel["id"]


def test_panels_of_one_answer_ask_once(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """The two panels about the queue draw the answer of one request."""
    server, _ = fleet
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url) if "/api/reports/queue" in request.url else None)
    overview(tab, server)

    assert len(asked) == 1
    assert tab.locator("#queue .plot").count() == tab.locator("#abandonment .plot").count() == 1


def test_bars_show_the_numbers_of_the_report(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A bar's label and value are the report's own."""
    server, store = fleet
    overview(tab, server)

    shown = tab.eval_on_selector_all(
        "#reasons .row",
        "rows => rows.map(row => [row.querySelector('.label').textContent, row.querySelector('b').textContent])",
    )
    expected = [
        [row["value"], f"{row['failed']:,}"] for row in answer(store, "failure_rate", by="reason", bucket="36500d")
    ]
    assert shown == expected


def test_the_table_of_a_chart_has_its_numbers(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A chart's table alternative has one row per row of the report, and the address remembers that it is open."""
    server, store = fleet
    overview(tab, server)

    tab.click("#failure_rate .tools button:has-text('Table')")

    expected = answer(store, "failure_rate", bucket="1h")
    assert [row[2] for row in rows_of(tab, "failure_rate")] == [f"{row['attempts']:,}" for row in expected]
    assert query(tab)["tables"] == "failure_rate"


def test_a_click_on_a_bar_filters_what_can_follow(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A bar sets its filter in the address; panels that cannot follow say so; another click takes it away."""
    server, _ = fleet
    overview(tab, server)

    tab.click("#reasons button:has-text('mediaStreamFailed')")
    until(
        tab,
        "[...document.querySelectorAll('#recent tbody tr')].every(r => r.textContent.includes('mediaStreamFailed'))",
    )

    assert query(tab)["error_type"] == "mediaStreamFailed"
    assert "Not filtered by error type" in tab.inner_text("#funnel .note")
    tab.click("#reasons button:has-text('mediaStreamFailed')")
    until(tab, "!location.search.includes('error_type')")


def test_a_cohort_filter_reaches_every_panel(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A region in the address filters each panel, and the same link shows the same numbers."""
    server, store = fleet
    overview(tab, server, "&region=eu-west-1")

    assert tab.input_value("input[name=region]") == "eu-west-1"
    expected = answer(store, "funnel", region="eu-west-1")
    assert tab.inner_text("#funnel li:first-child b") == f"{expected[0]['attempts']:,}"
    tab.fill("input[name=region]", "")
    tab.press("input[name=region]", "Enter")
    until(tab, f"document.querySelector('#funnel li b').textContent === '{answer(store, 'funnel')[0]['attempts']:,}'")


def test_probes_can_be_counted_in(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """Choosing that probes count changes the numbers to the report's with probes."""
    server, store = fleet
    overview(tab, server)

    tab.select_option("select[name=synthetic]", "true")

    everyone = answer(store, "funnel", synthetic="true")[0]["attempts"]
    assert everyone > answer(store, "funnel")[0]["attempts"]
    until(tab, f"document.querySelector('#funnel li b').textContent === '{everyone:,}'")


def test_dragging_over_a_chart_zooms_everything(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A drag sets an absolute range inside the old one; going back in history restores it."""
    server, _ = fleet
    overview(tab, server)
    box = tab.locator("#failure_rate .u-over").bounding_box()

    tab.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60, steps=4)
    tab.mouse.up()

    until(tab, f"!location.search.includes('{pages.SINCE[:13]}')")
    assert pages.SINCE < query(tab)["since"] < query(tab)["until"] < pages.UNTIL
    quiet(tab)
    tab.go_back()
    assert query(tab)["since"] == pages.SINCE


def test_the_keyboard_reads_and_zooms_a_chart(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """Arrow keys speak a chart's values; with Shift they choose a range, and Enter zooms to it."""
    server, _ = fleet
    overview(tab, server)
    tab.focus("#failure_rate .plot")

    tab.keyboard.press("ArrowLeft")
    assert re.search(r"failed [\d.]+ %|failed –", tab.inner_text("#failure_rate output"))
    for _ in range(5):
        tab.keyboard.press("Shift+ArrowLeft")
    tab.keyboard.press("Enter")

    until(tab, f"!location.search.includes('{pages.SINCE[:13]}')")
    assert query(tab)["since"] < query(tab)["until"]


def test_downloads_hold_the_rows_of_the_panel(tab: Any, fleet: tuple[pages.Server, Store], tmp_path: Path) -> None:
    """CSV and Parquet have the panel's rows, filters included."""
    server, store = fleet
    overview(tab, server, "&region=us-east-1")
    expected = answer(store, "funnel", region="us-east-1")

    with tab.expect_download() as csv:
        tab.click("#funnel .tools a:has-text('CSV')")
    with tab.expect_download() as parquet:
        tab.click("#funnel .tools a:has-text('Parquet')")

    lines = Path(csv.value.path()).read_text().splitlines()
    assert len(lines) == len(expected) + 1
    parquet.value.save_as(tmp_path / "funnel.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "funnel.parquet").num_rows == len(expected)


def test_the_sql_of_a_panel_can_be_read(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """The SQL button shows the report's file as it is."""
    server, _ = fleet
    overview(tab, server)

    tab.click("#funnel .tools button:has-text('SQL')")

    assert tab.inner_text("#funnel .sql pre").strip() == reports.find("funnel").sql.strip()


def test_new_telemetry_appears_by_itself(tab: Any, tmp_path: Path) -> None:
    """An attempt that arrives is shown within seconds, without a reload; paused, nothing moves."""
    with pages.serving(tmp_path / "live.duckdb", table(attempt(1))) as (server, store):
        tab.goto(f"{server.url}/?since={iso(T0 - 10**9)}")
        quiet(tab)
        tab.evaluate("window.mark = 'the same page'")
        assert tab.locator("#slowest tbody tr").count() == 1

        store.commit([table(attempt(2))])
        until(tab, "document.querySelectorAll('#slowest tbody tr').length === 2")
        tab.click("#live button")
        assert query(tab)["live"] == "off"
        store.commit([table(attempt(3))])
        tab.wait_for_timeout(2500)
        assert tab.locator("#slowest tbody tr").count() == 2
        tab.click("#live button")
        until(tab, "document.querySelectorAll('#slowest tbody tr').length === 3")
        assert tab.evaluate("window.mark") == "the same page"


def test_an_empty_store_says_so(tab: Any, tmp_path: Path) -> None:
    """Every panel of an empty store says that there is nothing, and none is broken."""
    with pages.serving(tmp_path / "empty.duckdb") as (server, _):
        overview(tab, server)

        assert (
            tab.locator(".panel .empty").count() + tab.locator(".panel table").count() >= tab.locator(".panel").count()
        )
        assert tab.locator(".panel .error").count() == 0


def test_a_server_that_goes_away_and_comes_back(tab: Any, tmp_path: Path) -> None:
    """While the server is away its last answer stays, under a notice; when it is back the page goes on by itself."""
    with pages.serving(tmp_path / "away.duckdb", table(attempt(1))) as (server, store):
        tab.goto(f"{server.url}/?since={iso(T0 - 10**9)}")
        quiet(tab)
        server.stop()
        tab.wait_for_selector("#away:not([hidden])")
        assert tab.locator("#slowest tbody tr").count() == 1
        store.commit([table(attempt(2))])
        server.start()
        tab.wait_for_selector("#away", state="hidden")
        until(tab, "document.querySelectorAll('#slowest tbody tr').length === 2")


def test_hostile_text_stays_text(tab: Any, tmp_path: Path) -> None:
    """Markup in messages, regions and ids is shown as text, and runs nothing."""
    hostile = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>\'"&'
    rows = table(attempt(1, outcome="failed", error="noScene", message=hostile, region=hostile))
    with pages.serving(tmp_path / "hostile.duckdb", rows) as (server, _):
        overview(tab, server, span=f"since={iso(T0 - 10**9)}")
        assert hostile in tab.inner_text("#recent")
        tab.goto(f"{server.url}/sessions/attempt-0001")
        tab.wait_for_selector("#story[aria-busy=false]")
        assert hostile in tab.inner_text("#story")
        tab.goto(f"{server.url}/sessions/%3Cimg%20src%3Dx%20onerror%3D%22window.broken%3D1%22%3E")
        tab.wait_for_selector("#story[aria-busy=false]")
        assert tab.evaluate("window.broken") is None
        assert tab.locator("main img, main script").count() == 0


def test_a_report_that_refuses_is_shown_with_its_reason(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A filter that a report cannot read is an error with words and a way to try again, not an empty chart."""
    server, _ = fleet
    tab.goto(f"{server.url}/?since=yesterday")
    quiet(tab)

    assert "since" in tab.inner_text("#funnel .error")
    assert tab.locator("#funnel .error button").count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_themes_differ_and_can_be_chosen(tab: Any, fleet: tuple[pages.Server, Store], theme: str) -> None:
    """`?theme=` sets the theme, and text is light on dark or dark on light."""
    server, _ = fleet
    overview(tab, server, f"&theme={theme}")

    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(ground) < 150) == (theme == "dark")


def test_the_overview_is_light_on_the_wire(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """The page, its modules and all its answers are under 250 kB as transferred, and come from this server alone."""
    server, _ = fleet
    overview(tab, server)

    entries = tab.evaluate("performance.getEntries().filter(e => e.transferSize).map(e => [e.name, e.transferSize])")
    assert sum(size for _, size in entries) < 250_000
    assert all(name.startswith(server.url) for name, _ in entries if name.startswith("http"))


def iso(ns: int) -> str:
    """A time as the address takes it."""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
