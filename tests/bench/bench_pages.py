"""How fast the pages draw in headless Chromium: first chart, everything, a filter click, a session; what they weigh.

The store is a fleet of 10 M spans over 90 days; `BENCH_PAGES_SPANS` names another size (`1000000`, `10000000/9`), and
`BENCH_FOLDER` keeps the stores for the next run.
Each round asks for a range that was not asked before, so that no answer is ready; the same address then comes again.
Times are medians of five rounds, in milliseconds after navigation or the click.
"""

import os
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from telemetry.store.duck import Store
from tests.bench import fleets
from tests.support import pages

ROUNDS = 5
REST_MS = 1500
DAYS = (1, 7, 90)
WATCH = """() => {
  const shown = {
    first: '.panel canvas, .panel .bars',
    all: '#panels[aria-busy=false]',
    story: '#story[aria-busy=false]',
    spans: '.spans[aria-busy=false]',
  };
  const seen = {};
  let looking = false;
  window.until = (what) => new Promise((resolve, reject) => {
    window.told = () => { if (what in seen) resolve(seen); };
    window.told();
    setTimeout(() => reject(`the page never showed ${what}`), 120_000);
  });
  const look = () => {
    looking = false;
    for (const what in shown) if (document.querySelector(shown[what])) seen[what] ??= performance.now();
    window.told?.();
  };
  new MutationObserver(() => {
    if (!looking) requestAnimationFrame(look);
    looking = true;
  }).observe(document, { subtree: true, childList: true, attributeFilter: ['aria-busy'] });
}"""
CLICK = """async () => {
  const begun = performance.now();
  document.querySelector('#reasons button').click();
  const seen = {};
  const busy = () => document.querySelector('.panel[aria-busy=true]');
  while (busy()) {
    if (!seen.list && document.querySelector('#recent[aria-busy=false]')) seen.list = performance.now() - begun;
    await new Promise(requestAnimationFrame);
  }
  seen.all = performance.now() - begun;
  return { list: seen.list ?? seen.all, all: seen.all };
}"""
FAILED = "select attempt_id from connections where outcome = 'failed' order by start_ns desc limit $limit"


def main() -> dict[str, Any]:
    """Measure, print and return the figures."""
    if pages.CHROMIUM is None:
        print(pages.MISSING, file=sys.stderr)
        return {}
    size = fleets.Size.read(os.environ.get("BENCH_PAGES_SPANS", "10000000"))
    with tempfile.TemporaryDirectory() as folder:
        path, _ = fleets.stored(Path(os.environ.get("BENCH_FOLDER", folder)), size)
        with Store.open(path, read_only=True) as store:
            figures = {"spans": store.info()["spans"], **_measured(store, size)}
    for name, value in figures.items():
        print(f"{name:32} {value:>12,.0f}")
    return figures


def _measured(store: Store, size: fleets.Size) -> dict[str, float]:
    ids = store.query(FAILED, {"limit": ROUNDS}).column(0).to_pylist()
    server = pages.Server(store)
    server.start()
    figures: dict[str, float] = {}
    try:
        with pages.browsing() as browser:
            for days in DAYS:
                print(f"  the last {days} days, {ROUNDS} rounds", file=sys.stderr, flush=True)
                rounds = [_overview(browser, server, size.now_ns // 10**9 - number, days) for number in range(ROUNDS)]
                figures |= _medians(f"{days}d", rounds)
            print(f"  {ROUNDS} sessions", file=sys.stderr, flush=True)
            figures |= _medians("session", [_session(browser, server, id) for id in ids])
    finally:
        server.stop()
    return figures


def _medians(of: str, rounds: list[dict[str, float]]) -> dict[str, float]:
    return {f"{of} {name}": statistics.median(round[name] for round in rounds) for name in rounds[0]}


def _overview(browser: Any, server: pages.Server, until_s: int, days: int) -> dict[str, float]:
    since, until = (datetime.fromtimestamp(s, UTC).isoformat() for s in (until_s - days * 86_400, until_s))
    address = f"{server.url}/?since={since[:19]}Z&until={until[:19]}Z"
    context, tab = _tab(browser)
    tab.goto(address)
    seen = _until(tab, "all")
    wire = tab.evaluate("performance.getEntries().reduce((sum, entry) => sum + (entry.transferSize ?? 0), 0)")
    click = tab.evaluate(CLICK)
    tab.goto(address)
    again = _until(tab, "all")
    context.close()
    return {
        "first_chart_ms": seen["first"],
        "everything_ms": seen["all"],
        "click_list_ms": click["list"],
        "click_everything_ms": click["all"],
        "again_everything_ms": again["all"],
        "wire_bytes": wire,
    }


def _session(browser: Any, server: pages.Server, id: str) -> dict[str, float]:
    context, tab = _tab(browser)
    tab.goto(f"{server.url}/sessions/{id}")
    seen = _until(tab, "spans")
    context.close()
    return {"complete_ms": seen["story"], "spans_ms": seen["spans"]}


def _tab(browser: Any) -> tuple[Any, Any]:
    """A tab of a profile that has loaded nothing yet; Chromium has done what it does for a window of its own."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    context.add_init_script(f"({WATCH})()")
    tab = context.new_page()
    tab.wait_for_timeout(REST_MS)
    return context, tab


def _until(tab: Any, what: str) -> dict[str, float]:
    """When each thing was shown; the page is asked once, because each question costs it time."""
    seen: dict[str, float] = tab.evaluate(f"until({what!r})")
    return seen


if __name__ == "__main__":
    main()
