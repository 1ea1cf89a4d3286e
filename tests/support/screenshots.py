"""Take the pictures of the pages for the README: `make screenshots`."""

import sys
import tempfile
from pathlib import Path

from telemetry import settings
from tests.support import pages

VIEW = {"width": 1440, "height": 1260}
SCALE = 0.75  # what keeps a picture under 200 kB
FAILED = """
select attempt_id from connections
where outcome = 'failed' and failing_part = 'webrtc.ice' and region = 'eu-west-1'
order by start_ns desc limit 1
"""


def main() -> None:
    """Draw the overview and a failed attempt of a seeded fleet, in both themes."""
    if pages.CHROMIUM is None:
        sys.exit(pages.MISSING)
    folder = settings.data_folder("dashboards") / "screenshots"
    folder.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        pages.serving(Path(place) / "store.duckdb", fleet_attempts=6000) as (server, store),
        pages.browsing() as browser,
    ):
        failed = store.query(FAILED).column(0)[0].as_py()
        overview = f"/?since={pages.SECOND_DAY}&until={pages.UNTIL}"
        for theme in ("light", "dark"):
            for name, path in (("overview", overview), ("session", f"/sessions/{failed}")):
                tab = browser.new_page(
                    viewport=VIEW, device_scale_factor=SCALE, color_scheme=theme, reduced_motion="reduce"
                )
                tab.goto(server.url + path)
                if name == "overview":
                    pages.quiet(tab)
                else:
                    tab.wait_for_selector(".spans[aria-busy=false]")
                tab.screenshot(path=folder / f"{name}-{theme}.png")
                tab.close()


if __name__ == "__main__":
    main()
