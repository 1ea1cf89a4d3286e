"""One browser, and the pages of one fleet, for all tests of this folder.

They leave with the folder: while Playwright's driver is there, its event loop runs, and no other test can have one.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import pages


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """A headless Chromium; without one these tests are skipped, and say how to get it."""
    if pages.CHROMIUM is None:
        pytest.skip(pages.MISSING)
    with pages.browsing() as browser:
        yield browser


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[pages.Server, Any]]:
    """The pages of a fleet of 1200 attempts over two days."""
    with pages.serving(tmp_path_factory.mktemp("fleet") / "fleet.duckdb", fleet_attempts=1200) as served:
        yield served


@pytest.fixture(scope="package")
def profile(browser: Any) -> Iterator[Any]:
    """One profile for all tabs: what the first of them loaded, the others need not load again."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(60_000)
    yield context
    context.close()


@pytest.fixture
def tab(profile: Any) -> Iterator[Any]:
    """A fresh tab that must not meet a broken script or a refused resource."""
    yield from pages.watched(profile)


@pytest.fixture(scope="module")
def shown(profile: Any, fleet: tuple[pages.Server, Any]) -> Iterator[Any]:
    """The overview of the fleet, drawn once for the tests that only look."""
    for page in pages.watched(profile):
        page.goto(f"{fleet[0].url}/?since={pages.SINCE}&until={pages.UNTIL}")
        pages.quiet(page)
        yield page
