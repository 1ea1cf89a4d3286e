"""The pages with a real store behind them, served on a real port, for a real browser."""

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pyarrow as pa
import uvicorn

from telemetry.serve import listening
from telemetry.simulator import fleet
from telemetry.simulator.fleet import Effect
from telemetry.store.duck import Store
from telemetry.web.app import pages_app

CHROMIUM: Final = shutil.which("chromium")
MISSING: Final = "Chromium is not installed, so the pages are not tested; run `apt-get install chromium`"
FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
"""A browser that talks to nobody but the server under test."""

DAYS: Final = 2.0
SINCE: Final = "2026-09-21T00:00:00Z"
SECOND_DAY: Final = "2026-09-22T00:00:00Z"
UNTIL: Final = "2026-09-23T00:00:00Z"
"""The range of the fleet, as the pages' address takes it."""
EFFECTS: Final = (
    fleet.bad_release(version="1.5.0", region="eu-west-1", rate=0.2),
    fleet.saturated_hour(day=1.4, hours=1.5),
    Effect(name="slow_assets", from_day=0.6, until_day=0.8, region="ap-southeast-2", slower={fleet.Part.ASSETS: 4.0}),
)


def fill(store: Store, attempts: int = 3000, *, seed: int = 7, start_ns: int = fleet.START_NS) -> None:
    """Write a fleet whose failures are known into a store."""
    tables = fleet.generate(attempts, DAYS, seed, EFFECTS, start_ns=start_ns, sample_every_s=30, most_samples=12)
    store.commit(list(tables))


class Server:
    """The pages of a store on a loopback port; it can go away and come back on the same one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Begin to listen."""
        listener = listening("127.0.0.1", self._port, "pages")
        self._port = listener.getsockname()[1]
        app = pages_app(self._store, info=self._store.info)  # one for each event loop
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = self._server = uvicorn.Server(config)

        def run() -> None:
            with listener:
                asyncio.run(server.serve(sockets=[listener]))

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        until = time.monotonic() + 10
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)

    def ask(self, path: str) -> Any:
        """What the query API answers."""
        return httpx.get(self.url + path, timeout=60).json()

    def stop(self) -> None:
        """Go away."""
        assert self._server is not None
        assert self._thread is not None
        self._server.should_exit = True
        self._thread.join(10)


@contextmanager
def serving(path: Path, *tables: pa.Table, fleet_attempts: int = 0) -> Iterator[tuple[Server, Store]]:
    """A store with these spans, or with a fleet, and its pages."""
    with Store.open(path) as store:
        if tables:
            store.commit(list(tables))
        if fleet_attempts:
            fill(store, fleet_attempts)
        server = Server(store)
        server.start()
        try:
            yield server, store
        finally:
            server.stop()


@contextmanager
def browsing() -> Iterator[Any]:
    """A Chromium with a fresh profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def watched(context: Any) -> Iterator[Any]:
    """A tab, and at its end the proof that no script broke in it and no resource was refused."""
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if "Content Security" in message.text else None)
    yield page
    page.close()
    assert troubles == [], troubles


def until(tab: Any, expression: str) -> None:
    """Wait until an expression holds in the page, looked at with every frame.

    The driver's own way to wait compiles text in the page, which the pages' policy refuses.
    """
    held = tab.evaluate(f"""async () => {{
      const end = performance.now() + 60_000;
      while (!({expression})) {{
        if (performance.now() > end) return false;
        await new Promise(requestAnimationFrame);
      }}
      return true;
    }}""")
    assert held, f"it never came to be that {expression}"


def quiet(tab: Any) -> None:
    """Wait until the overview is there and none of its panels waits."""
    until(
        tab, "document.querySelector('#panels[aria-busy=false]') && !document.querySelector('.panel[aria-busy=true]')"
    )
