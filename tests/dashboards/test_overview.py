"""The overview in a real browser with a real store behind it."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet
import pytest

from telemetry import formats, reports
from telemetry.store.duck import Store
from tests.support import pages
from tests.support.pages import quiet, until
from tests.support.spans import T0, attempt, table

pytestmark = pytest.mark.real

RANGE = f"since={pages.SINCE}&until={pages.UNTIL}"


def overview(tab: Any, server: pages.Server, more: str = "", span: str = RANGE) -> None:
    """Open the overview and wait until every panel has its answer."""
    tab.goto(f"{server.url}/?{span}{more}")
    quiet(tab)


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


def test_every_panel_draws_what_its_report_answers(shown: Any, fleet: tuple[pages.Server, Store]) -> None:
    """Each declared panel is there, has as many rows as its report, and states unit, denominator and n."""
    server, store = fleet
    declared = server.ask("/api/pages/overview")["panels"]

    for panel in declared:
        known = {param.name for param in reports.find(panel["report"]).params}
        asked = {"bucket": "1h", **panel.get("params", {}), **panel.get("only", {})}
        params = {name: value for name, value in asked.items() if name in known}
        rows = answer(store, panel["report"], **params)
        section = shown.locator(f"#{panel['id']}")
        assert section.get_attribute("data-rows") == str(len(rows)), panel["id"]
        assert section.locator(".error").count() == 0, panel["id"]
        assert "n = " in section.locator(".facts").inner_text(), panel["id"]
        assert section.locator("h3").inner_text().strip(), panel["id"]


@pytest.mark.parametrize(
    ("report", "panels"), [("queue", ("queue", "abandonment")), ("step_durations", ("connect_time", "step_p95"))]
)
def test_panels_of_one_answer_ask_once(
    tab: Any, fleet: tuple[pages.Server, Store], report: str, panels: tuple[str, ...]
) -> None:
    """Two panels draw the answer of one request, each of them its own rows."""
    server, store = fleet
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url) if f"/api/reports/{report}?" in request.url else None)
    overview(tab, server)

    assert len(asked) == 1
    assert [tab.locator(f"#{panel} .plot").count() for panel in panels] == [1, 1]
    if report == "step_durations":
        whole = answer(store, report, bucket="1h", step="connect")
        assert tab.get_attribute("#connect_time", "data-rows") == str(len(whole))
        assert parse_qs(urlsplit(tab.get_attribute("#connect_time a", "href")).query)["step"] == ["connect"]


def test_bars_show_the_numbers_of_the_report(shown: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A bar's label and value are the report's own."""
    _, store = fleet
    drawn = shown.eval_on_selector_all(
        "#reasons .row",
        "rows => rows.map(row => [row.querySelector('.label').textContent, row.querySelector('b').textContent])",
    )
    expected = [
        [row["value"], f"{row['failed']:,}"] for row in answer(store, "failure_rate", by="reason", bucket="all")
    ]
    assert drawn == expected


def test_a_rate_is_read_with_its_interval_and_its_denominator(shown: Any, fleet: tuple[pages.Server, Store]) -> None:
    """The legend of the failure rate has the last bucket's rate, its interval, and how many ended."""
    _, store = fleet
    last = answer(store, "failure_rate", bucket="1h")[-1]

    legend = shown.inner_text("#failure_rate .legend")

    assert re.search(r"failed [\d.]+ % \([\d.]+ % to [\d.]+ %\)", legend)
    assert f"ended {last['ended']:,}" in legend


def test_an_interval_is_said_from_low_to_high(shown: Any) -> None:
    """The interval of each large figure begins with its lower end and holds the figure."""
    figures = shown.eval_on_selector_all(
        "#now .figures > div", "figures => figures.map(figure => [...figure.children].map(part => part.textContent))"
    )
    said = [(value, re.match(r"([\d.]+) % to ([\d.]+) %", beside)) for _, value, beside in figures]
    intervals = [(float(end[1]), float(value.removesuffix(" %")), float(end[2])) for value, end in said if end]

    assert len(intervals) == 2
    assert intervals == [tuple(sorted(interval)) for interval in intervals]


def test_paper_says_what_it_shows(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """In print the range and the chosen filters stand above the panels, in words, where the bar of filters is not."""
    server, _ = fleet
    overview(tab, server, "&region=eu-west-1")
    assert not tab.locator(".printed").is_visible()

    tab.emulate_media(media="print")

    assert tab.inner_text(".printed") == "2026-09-21 00:00:00 to 2026-09-23 00:00:00 UTC · region: eu-west-1"
    assert not tab.locator("#filters").is_visible()


def test_each_failed_attempt_is_listed_with_its_verdict(shown: Any, fleet: tuple[pages.Server, Store]) -> None:
    """The list of failures has the sentence that the attempt's own page begins with, and links to that page."""
    server, store = fleet
    first = answer(store, "recent", outcome="failed", limit="25")[0]["attempt_id"]

    link = shown.locator("#recent tbody tr").first.locator("td.long a")

    assert link.inner_text() == server.ask(f"/api/sessions/{first}")["verdict"]["sentence"]
    assert link.get_attribute("href") == f"/sessions/{first}"


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


def test_a_cell_leads_to_its_attempts_slowest_first(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A cell of the heat map filters by its region and times, and the way to its attempts orders them by time."""
    server, store = fleet
    overview(tab, server)
    tab.click("#time_by_region .cell:not([disabled]) >> nth=3")
    until(tab, "location.search.includes('at_least') && document.querySelector('#chips .lead')")

    tab.click("#chips .lead")
    until(tab, "document.querySelector('#recent button[data-value=slowest]').ariaPressed === 'true'")
    quiet(tab)

    asked = {name: value for name, value in query(tab).items() if name not in ("since", "until")}
    assert set(asked) == {"region", "at_least", "below", "outcome", "order"}
    expected = answer(store, "recent", limit="25", **asked)
    assert [row[1][:13] for row in rows_of(tab, "recent")] == [row["attempt_id"][:13] for row in expected]
    took = [row["connecting_ms"] for row in expected]
    assert took == sorted(took, reverse=True)
    assert tab.locator("#recent h3").bounding_box()["y"] < 1000


def test_a_reason_to_end_leads_to_its_sessions(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A bar of the disconnect reasons lists the attempts that ended so."""
    server, store = fleet
    overview(tab, server)
    sessions = answer(store, "disconnects")[-1]

    tab.click("#disconnects .row >> nth=-1")
    until(tab, "location.search.includes('ended_by')")
    quiet(tab)

    assert query(tab)["disconnect_reason"] == sessions["disconnect_reason"]
    assert len(rows_of(tab, "recent")) == min(25, sessions["sessions"])


def test_a_legend_filters(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A click on a line's name shows that step alone, and the slowest attempts in it."""
    server, store = fleet
    overview(tab, server)

    tab.click("#step_p95 .legend button:has-text('DownloadingAssets')")
    until(tab, "document.querySelectorAll('#step_p95 .legend button').length === 1")
    quiet(tab)

    first = answer(store, "slowest", step="DownloadingAssets", limit="25")[0]["attempt_id"]
    assert rows_of(tab, "slowest")[0][1][:13] == first[:13]


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


def test_filters_suggest_the_values_of_the_range(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A cohort filter offers what the range holds, also when the range has changed since the page was opened."""
    server, store = fleet
    overview(tab, server, span="since=15m")
    tab.click(".absolute summary")
    tab.fill("input[aria-label='From, UTC']", pages.SINCE[:19])
    tab.fill("input[aria-label='to, UTC']", pages.UNTIL[:19])
    tab.click(".absolute button")
    until(tab, "document.querySelector('#known-region option')")

    offered = tab.eval_on_selector_all("#known-region option", "options => options.map(option => option.value)")
    rows = answer(store, "cohorts")
    assert offered == sorted(row["value"] for row in rows if row["dimension"] == "region")


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


def test_the_sql_of_a_panel_can_be_read(shown: Any) -> None:
    """The SQL button shows the report's file as it is."""
    shown.click("#funnel .tools button:has-text('SQL')")

    assert shown.inner_text("#funnel .sql pre").strip() == reports.find("funnel").sql.strip()


def test_new_telemetry_appears_by_itself(tab: Any, tmp_path: Path) -> None:
    """An attempt that arrives is shown within seconds, without a reload; paused, nothing moves."""
    with pages.serving(tmp_path / "live.duckdb", table(attempt(1))) as (server, store):
        tab.clock.install()
        tab.goto(f"{server.url}/?since={iso(T0 - 10**9)}")
        quiet(tab)
        tab.evaluate("window.mark = 'the same page'")
        assert tab.locator("#slowest tbody tr").count() == 1

        store.commit([table(attempt(2))])
        tab.clock.fast_forward(8000)
        until(tab, "document.querySelectorAll('#slowest tbody tr').length === 2")
        tab.click("#live button")
        assert query(tab)["live"] == "off"
        store.commit([table(attempt(3))])
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.clock.run_for(20_000)
        assert asked == []
        assert tab.locator("#slowest tbody tr").count() == 2
        tab.click("#live button")
        tab.clock.fast_forward(8000)
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
        tab.clock.install()
        tab.goto(f"{server.url}/?since={iso(T0 - 10**9)}")
        quiet(tab)
        server.stop()
        tab.clock.fast_forward(8000)
        tab.wait_for_selector("#away:not([hidden])")
        assert tab.locator("#slowest tbody tr").count() == 1
        store.commit([table(attempt(2))])
        server.start()
        tab.clock.fast_forward(8000)
        tab.wait_for_selector("#away", state="hidden")
        until(tab, "document.querySelectorAll('#slowest tbody tr').length === 2")


def test_hostile_text_stays_text(tab: Any, tmp_path: Path) -> None:
    """Markup in messages, regions and ids is shown as text, and runs nothing."""
    hostile = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>\'"&'
    rows = attempt(1, outcome="failed", error="noScene", message=hostile, region=hostile)
    for row in rows:
        row |= {"attempt_id": f"attempt-{hostile}", "session_id": f"session-{hostile}"}
    with pages.serving(tmp_path / "hostile.duckdb", table(rows)) as (server, _):
        overview(tab, server, span=f"since={iso(T0 - 10**9)}")
        assert hostile in tab.inner_text("#recent")
        assert hostile in tab.inner_text("#errors")
        tab.goto(f"{server.url}/sessions/{1:032x}")
        tab.wait_for_selector(".spans[aria-busy=false]")
        assert hostile in tab.inner_text("h1")
        assert hostile in tab.inner_text(".ids")
        tab.click(".spans summary >> nth=0")
        until(tab, "document.querySelector('.spans details[open] table')")
        assert hostile in tab.inner_text(".spans")
        tab.goto(f"{server.url}/sessions/%3Cimg%20src%3Dx%20onerror%3D%22window.broken%3D1%22%3E")
        tab.wait_for_selector("#story[aria-busy=false]")
        assert tab.evaluate("window.broken") is None
        assert tab.locator("main img, main script").count() == 0


def test_a_report_that_refuses_is_shown_with_its_reason(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """A filter that a report cannot read is an error with words and a way to try again, not an empty chart."""
    server, _ = fleet
    overview(tab, server, "&bucket=often")

    assert "bucket" in tab.inner_text("#failure_rate .error")
    assert tab.locator("#failure_rate .error button").count() == 1
    assert tab.is_hidden("#refused")


def test_a_range_that_cannot_be_read_is_said_once(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """What every panel would say stands there once, and the panels come back with a range that can be read."""
    server, _ = fleet
    tab.goto(f"{server.url}/?since=yesterday")
    quiet(tab)

    assert "since" in tab.inner_text("#refused")
    assert tab.locator("[role=alert]:visible").count() == 1

    tab.click("[data-since='90d']")
    until(tab, "document.getElementById('refused').hidden")
    assert tab.is_visible("#funnel .drawing")


def test_a_slow_answer_says_so_and_keeps_what_was_drawn(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """While an answer is long in coming its panel says so above the last drawing, and the others go on."""
    server, _ = fleet
    tab.clock.install()
    overview(tab, server)
    held: list[Any] = []
    tab.route("**/api/reports/funnel*", lambda route: held.append(route))

    tab.click("#reasons button >> nth=0")
    tab.fill("input[name=region]", "us-east-1")
    tab.press("input[name=region]", "Enter")
    until(
        tab, "document.querySelector('#details[aria-busy=false]') && document.querySelector('#funnel[aria-busy=true]')"
    )
    tab.clock.fast_forward(1500)

    until(tab, "document.querySelector('#funnel .wait').textContent.includes('takes a while')")
    assert tab.locator("#funnel .row").count() == 4
    for route in held:
        route.continue_()
    until(tab, "document.querySelector('#funnel .wait').textContent === ''")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_themes_differ_and_can_be_chosen(tab: Any, fleet: tuple[pages.Server, Store], theme: str) -> None:
    """`?theme=` sets the theme, and text is light on dark or dark on light."""
    server, _ = fleet
    tab.goto(f"{server.url}/sessions/no-such-attempt?theme={theme}")

    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(ground) < 150) == (theme == "dark")


def test_the_overview_is_light_on_the_wire(browser: Any, fleet: tuple[pages.Server, Store]) -> None:
    """The page, its modules and all its answers are under 250 kB as transferred, and come from this server alone."""
    server, _ = fleet
    tab = browser.new_page()  # with nothing loaded before
    overview(tab, server)

    entries = tab.evaluate("performance.getEntries().filter(e => e.transferSize).map(e => [e.name, e.transferSize])")
    assert sum(size for _, size in entries) < 250_000
    assert all(name.startswith(server.url) for name, _ in entries if name.startswith("http"))
    tab.close()


def iso(ns: int) -> str:
    """A time as the address takes it."""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
