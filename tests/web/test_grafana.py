"""The Grafana dashboard that is made from the overview."""

import json
import tomllib

from telemetry import reports, settings
from telemetry.web import grafana

FOLDER = settings.data_folder("dashboards")
PAGE = tomllib.loads((FOLDER / "overview.toml").read_text("utf-8"))


def test_the_file_is_up_to_date() -> None:
    """`dashboards/grafana.json` is what the overview gives; `python -m telemetry.web.grafana` gives it anew."""
    assert json.loads((FOLDER / "grafana.json").read_text("utf-8")) == grafana.dashboard(PAGE)


def test_every_panel_asks_its_report_with_parameters_that_it_takes() -> None:
    """Each Grafana panel names an existing report and only parameters that it knows."""
    for panel in grafana.dashboard(PAGE)["panels"]:
        [target] = panel["targets"]
        report = reports.find(target["url"].rpartition("/")[2])
        given = {param["key"] for param in target["url_options"]["params"]}

        assert given <= {param.name for param in report.params}, panel["title"]


def test_panels_do_not_overlap() -> None:
    """No two panels share a cell of Grafana's grid."""
    cells = [
        (x, y)
        for panel in grafana.dashboard(PAGE)["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
