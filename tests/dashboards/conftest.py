"""One browser, and the pages of one fleet, for all tests of this folder."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import pages


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; without one these tests are skipped, and say how to get it."""
    if pages.CHROMIUM is None:
        pytest.skip(pages.MISSING)
    with pages.browsing() as browser:
        yield browser


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[pages.Server, Any]]:
    """The pages of a fleet of 1200 attempts over two days."""
    with pages.serving(tmp_path_factory.mktemp("fleet") / "fleet.duckdb", fleet_attempts=1200) as served:
        yield served


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A fresh tab with a profile of its own, that must not meet a broken script or a refused resource."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(15_000)
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if "Content Security" in message.text else None)
    yield page
    context.close()
    assert troubles == []
