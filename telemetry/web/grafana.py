"""Make a Grafana dashboard from a declared page, for the Infinity data source over the query API.

`python -m telemetry.web.grafana > dashboards/grafana.json` writes the file anew; a test says when that is due.
"""

import json
import sys
import tomllib
from collections.abc import Iterable
from typing import Any, Final

from telemetry import reports, settings

_PANELS: Final = {
    "series": "timeseries",
    "bars": "barchart",
    "funnel": "barchart",
    "columns": "barchart",
    "figures": "stat",
    "heat": "table",
    "table": "table",
}
_WIDTHS: Final = {"third": 8, "half": 12, "twothirds": 16, "full": 24}
_HEIGHT: Final = 8
_WHOLE_WIDTH: Final = 24
_COHORT: Final = ("region", "client_version", "runtime", "network_type", "server_address", "environment")
_SOURCE: Final = {"type": "yesoreyeram-infinity-datasource", "uid": "${source}"}
_TIMES: Final = {"since": "${__from:date:iso}", "until": "${__to:date:iso}", "bucket": "${__interval_ms}ms"}


def dashboard(page: dict[str, Any]) -> dict[str, Any]:
    """A page as Grafana imports it: its panels ask the same reports, its variables are the cohort filters."""
    panels = []
    across = down = 0
    for number, panel in enumerate(page["panels"], 1):
        width = _WIDTHS[panel.get("size", "half")]
        if across + width > _WHOLE_WIDTH:
            across, down = 0, down + _HEIGHT
        place = {"x": across, "y": down, "w": width, "h": _HEIGHT}
        panels.append(_panel(panel, number, place))
        across += width
    return {
        "title": page["title"],
        "description": page.get("notice", ""),
        "uid": "dp-telemetry",
        "tags": ["dp-telemetry"],
        "timezone": "utc",
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [*_variables()]},
        "panels": panels,
    }


def _variables() -> Iterable[dict[str, Any]]:
    yield {"name": "source", "label": "Infinity", "type": "datasource", "query": "yesoreyeram-infinity-datasource"}
    yield {
        "name": "server",
        "label": "Server",
        "type": "textbox",
        "query": f"http://{settings.LOOPBACK}:{settings.PAGES_PORT}",
    }
    for name in _COHORT:
        yield {"name": name, "label": name.replace("_", " "), "type": "textbox", "query": ""}


def _panel(panel: dict[str, Any], number: int, place: dict[str, int]) -> dict[str, Any]:
    report = reports.find(panel["report"])
    return {
        "id": number,
        "title": panel.get("title", report.question),
        "description": " ".join(filter(None, [panel.get("notice"), report.notes])),
        "type": _PANELS[panel["mark"]],
        "gridPos": place,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "targets": [
            {
                "refId": "A",
                "datasource": _SOURCE,
                "type": "json",
                "source": "url",
                "parser": "backend",
                "format": "timeseries" if panel["mark"] == "series" else "table",
                "url": f"${{server}}/api/reports/{report.name}",
                "root_selector": "rows",
                "url_options": {"method": "GET", "params": _params(panel, report)},
                "columns": [{"selector": name, "text": name, "type": kind} for name, kind in _columns(panel)],
            }
        ],
    }


def _defaults(panel: dict[str, Any]) -> dict[str, Any]:
    first = next((name for name, kind in _columns(panel) if kind == "number"), "")
    if first.endswith("_ratio"):
        return {"unit": "percentunit", "min": 0}
    return {"unit": "ms", "min": 0} if first.endswith("_ms") else {"min": 0}


def _params(panel: dict[str, Any], report: reports.Report) -> list[dict[str, str]]:
    wanted = {
        **_TIMES,
        **{name: f"${{{name}}}" for name in _COHORT},
        **panel.get("defaults", {}),
        **panel.get("params", {}),
        **panel.get("only", {}),
    }
    known = [param.name for param in report.params]
    return [{"key": name, "value": str(value)} for name, value in wanted.items() if name in known]


def _columns(panel: dict[str, Any]) -> list[tuple[str, str]]:
    """The columns that the mark reads, with Grafana's types for them."""
    match panel["mark"]:
        case "series":
            series = [(panel["series"], "string")] if "series" in panel else []
            return [(panel["x"], "timestamp"), *series, *((name, "number") for name in _list(panel["y"]))]
        case "bars" | "funnel":
            return [*((name, "string") for name in _list(panel["label"])), (panel["value"], "number")]
        case "columns":
            return [(panel["x"], "string"), (panel["value"], "number")]
        case "heat":
            return [(panel["y"], "string"), (panel["x"], "string"), (panel["value"], "number")]
        case "figures":
            return [(figure["value"], "number") for figure in panel["figures"]]
        case _:
            # The verdict's sentence is the page's own; its rule is the report's.
            return [("rule" if name == "sentence" else name, "string") for name in panel.get("columns", [])]


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def main() -> None:
    """Write the overview to standard output."""
    page = tomllib.loads((settings.data_folder("dashboards") / "overview.toml").read_text("utf-8"))
    json.dump(dashboard(page), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
