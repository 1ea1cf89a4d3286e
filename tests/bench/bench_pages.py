"""How fast the pages draw in headless Chromium: first chart, everything, a filter click, a session; what they weigh.

Set `BENCH_PAGES_SPANS` for another size than 10 M spans. Times are medians of five, in milliseconds after navigation.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from telemetry.simulator import fleet
from telemetry.store.duck import Store
from tests.support import pages

SPANS_AN_ATTEMPT = 22
"""What the generator makes of an attempt with a heartbeat a minute, on average; it only sizes the fleet."""
DAYS = 7.0
ROUNDS = 5
RANGE = "since=2026-09-21T00:00:00Z&until=2026-09-28T00:00:00Z"
WATCH = """() => {
  const seen = {};
  const look = () => {
    if (!seen.first && document.querySelector('.panel canvas, .panel .bars')) seen.first = performance.now();
    const panels = [...document.querySelectorAll('.panel')];
    if (!seen.all && panels.length && panels.every(panel => panel.ariaBusy === 'false')) seen.all = performance.now();
    if (!seen.story && document.querySelector('#story[aria-busy=false]')) seen.story = performance.now();
    requestAnimationFrame(look);
  };
  window.seen = seen;
  look();
}"""


def main() -> dict[str, Any]:
    """Measure, print and return the figures."""
    if pages.CHROMIUM is None:
        print(pages.MISSING, file=sys.stderr)
        return {}
    spans = int(os.environ.get("BENCH_PAGES_SPANS", "10000000"))
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "store.duckdb") as store:
        for table in fleet.generate(spans // SPANS_AN_ATTEMPT, DAYS, seed=1, effects=pages.EFFECTS):
            store.commit([table])
        stored = store.query("select count(*) as spans from spans").column(0)[0].as_py()
        server = pages.Server(store)
        server.start()
        try:
            with pages.browsing() as browser:
                figures = {"spans": stored, **_measured(browser, server, store)}
        finally:
            server.stop()
    for name, value in figures.items():
        print(f"{name:24} {value:>12,.0f}")
    return figures


def _measured(browser: Any, server: pages.Server, store: Store) -> dict[str, float]:
    failed = store.query("select attempt_id from connections where outcome = 'failed' order by start_ns limit 1")
    id = failed.column(0)[0].as_py()
    rounds = [_round(browser, server, id) for _ in range(ROUNDS)]
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def _round(browser: Any, server: pages.Server, id: str) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    context.add_init_script(f"({WATCH})()")
    tab = context.new_page()
    tab.goto(f"{server.url}/?{RANGE}")
    seen = _until(tab, "all")
    wire = tab.evaluate("performance.getEntries().reduce((sum, entry) => sum + (entry.transferSize ?? 0), 0)")
    tab.evaluate("window.clicked = performance.now(); document.querySelector('#reasons button').click()")
    click = _filtered(tab)
    tab.goto(f"{server.url}/sessions/{id}")
    story = _until(tab, "story")
    context.close()
    return {
        "first_chart_ms": seen["first"],
        "everything_ms": seen["all"],
        "filter_click_ms": click,
        "session_ms": story["story"],
        "overview_wire_bytes": wire,
    }


def _until(tab: Any, what: str) -> dict[str, float]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        seen: dict[str, float] = tab.evaluate("window.seen ?? {}")
        if what in seen:
            return seen
        tab.wait_for_timeout(20)
    raise TimeoutError(f"the page never showed {what}")


def _filtered(tab: Any) -> float:
    """From the click on a reason until the table of failures holds only that reason's attempts."""
    took: float = tab.evaluate("""async () => {
      const before = document.querySelector('#recent tbody');
      while (document.querySelector('#recent tbody') === before) await new Promise(requestAnimationFrame);
      return performance.now() - window.clicked;
    }""")
    return took


if __name__ == "__main__":
    main()
