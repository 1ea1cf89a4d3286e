"""Both pages in both themes, as axe-core sees them."""

from typing import Any

import pytest

from telemetry.store.duck import Store
from tests.support import pages

pytestmark = pytest.mark.real

STOP = """[
  document.activeElement.closest('header, form, section')?.id ?? '',
  getComputedStyle(document.activeElement).outlineStyle,
]"""
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def open_page(tab: Any, server: pages.Server, store: Store, page: str) -> None:
    """Open the overview with a filter and a table, the page of a failed attempt, or that of an unknown one."""
    some = store.query("select attempt_id from connections where outcome = 'failed' order by start_ns limit 1")
    path = {
        "overview": f"/?since={pages.SINCE}&until={pages.UNTIL}&tables=failure_rate&error_type=noScene",
        "session": f"/sessions/{some.column(0)[0].as_py()}",
        "unknown": "/sessions/no-such-attempt",
    }[page]
    tab.goto(server.url + path)
    if page == "overview":
        pages.quiet(tab)
    tab.wait_for_selector("main[aria-busy=false], #panels[aria-busy=false]")
    if page == "session":
        tab.wait_for_selector(".spans[aria-busy=false]")


@pytest.mark.parametrize("page", ["overview", "session", "unknown"])
def test_axe_finds_nothing(tab: Any, fleet: tuple[pages.Server, Store], page: str) -> None:
    """No rule of WCAG 2.2 AA or of good practice is broken; in the dark, none about colours."""
    from axe_playwright_python.sync_playwright import Axe

    server, store = fleet
    tab.emulate_media(reduced_motion="reduce")
    open_page(tab, server, store, page)

    broken = Axe().run(tab, options={"runOnly": TAGS, "resultTypes": ["violations"]}).response["violations"]
    tab.emulate_media(color_scheme="dark")
    broken += (
        Axe().run(tab, options={"runOnly": ["color-contrast"], "resultTypes": ["violations"]}).response["violations"]
    )
    assert [(rule["id"], [node["html"][:160] for node in rule["nodes"]][:3]) for rule in broken] == []


@pytest.mark.parametrize("page", ["overview", "session", "unknown"])
def test_a_narrow_window_cuts_nothing_off(tab: Any, fleet: tuple[pages.Server, Store], page: str) -> None:
    """At the width of a small phone one scrolls down, and never across."""
    server, store = fleet
    tab.set_viewport_size({"width": 320, "height": 800})
    open_page(tab, server, store, page)

    assert tab.evaluate("document.documentElement.scrollWidth") == 320


def test_everything_can_be_reached_with_the_tab_key(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """Tab leads from the skip link through search and filters into the panels, with a visible focus at each stop."""
    server, _ = fleet
    tab.goto(f"{server.url}/?since={pages.SINCE}&until={pages.UNTIL}")
    pages.quiet(tab)

    stops = []
    for _ in range(60):
        tab.keyboard.press("Tab")
        stops.append(tab.evaluate(STOP))

    places = list(dict.fromkeys(place for place, _ in stops))
    assert [place for place in places if place in ("top", "filters", "failure_rate", "reasons")] == [
        "top",
        "filters",
        "failure_rate",
        "reasons",
    ]
    assert all(outline != "none" for _, outline in stops)


def test_motion_is_left_out_where_it_is_not_wanted(tab: Any, fleet: tuple[pages.Server, Store]) -> None:
    """Under reduced motion nothing is animated."""
    server, _ = fleet
    tab.emulate_media(reduced_motion="reduce")
    tab.goto(f"{server.url}/?since={pages.SINCE}&until={pages.UNTIL}")
    tab.wait_for_selector(".panel")

    moving = tab.evaluate(
        "[...document.querySelectorAll('*')].filter(e => getComputedStyle(e).animationName !== 'none').length"
    )
    assert moving == 0
