"""The OpenAPI description of the query API, made from the catalogue of reports. No I/O, no clock."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from telemetry import __version__
from telemetry.traces import FORMATS

if TYPE_CHECKING:
    from telemetry.reports import Param, Report

_ERROR = {
    "description": "What went wrong, and what to do next.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "error": {
                        "type": "object",
                        "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
                        "required": ["type", "message"],
                    }
                },
            }
        }
    },
}
_FORMAT = {
    "name": "format",
    "in": "query",
    "description": "json has the columns with their types beside the rows",
    "schema": {"type": "string", "enum": ["json", "csv", "parquet", "arrow"], "default": "json"},
}


def description(catalogue: "Mapping[str, Report]") -> dict[str, Any]:
    """Describe every path that can be asked, one for each report."""
    paths = {
        "/api/health": _get("Is the server alive? Needs no token."),
        "/api/openapi.json": _get("What can be asked? This description."),
        "/api/store": _get("What does the store hold?"),
        "/api/store/verify": _get("Do the maintained relations equal their definitions, recomputed?"),
        "/api/store/backup": _get("A copy of the store, whole.", media_type="application/octet-stream"),
        "/api/pulse": _get("A number that changes when telemetry arrives: ask it often, and reports only then."),
        "/metrics": _get("The state of attempts, alerts and the receiver, for Prometheus.", media_type="text/plain"),
        "/api/pages/{name}": _get("Which panels has a page, and which reports are behind them?", [_in_path("name")]),
        "/api/reports": _get("Which reports are there, with their questions, parameters and SQL?"),
        "/api/sessions/{id}": _get(
            "What happened to one session? By sessionId, attempt, episode or trace id, or a unique beginning of one.",
            [_in_path("id"), _in_query("about", "when it happened, ISO 8601: tells expired from unknown")],
        ),
        "/api/find": _post("Which id of an attempt, session, episode or trace is in this text, such as a log line?"),
        "/api/verdicts": _get(
            "What is the verdict on each of these attempts, in one sentence?",
            [
                _in_query("attempt_id", "one or more", required=True),
                _in_query("since_ns", "none of them began before", required=True),
                _in_query("until_ns", "none of them began after", required=True),
            ],
        ),
        "/api/capsules/{id}": _get(
            "Everything about one attempt as one scrubbed file that opens offline; by the same ids.",
            [_in_path("id")],
            media_type="text/html",
        ),
        "/api/services": _get("Which services sent spans? As Jaeger asks it."),
        "/api/services/{service}/operations": _get(
            "Which span names has a service? As Jaeger asks it.", [_in_path("service")]
        ),
        "/api/traces": _get(
            "Which traces match? As Jaeger asks it.",
            [
                _in_query("service", "", required=True),
                _in_query("operation", "a span's name"),
                _in_query("start", "microseconds UTC"),
                _in_query("end", "microseconds UTC"),
                _in_query("minDuration", "such as 200ms"),
                _in_query("maxDuration", "such as 1.5s"),
                _in_query("tags", "a JSON object"),
                _in_query("limit", "how many traces"),
            ],
        ),
        "/api/traces/{id}": _get(
            "One trace, for a viewer of Jaeger's, Chrome's or OTLP's JSON.",
            [_in_path("id"), _in_query("format", "jaeger when not given", choices=sorted(FORMATS))],
        ),
    }
    for report in catalogue.values():
        paths[f"/api/reports/{report.name}"] = _get(report.question, [*map(_parameter, report.params), _FORMAT])
    return {
        "openapi": "3.1.0",
        "info": {"title": "dp-telemetry query API", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}, {}],
    }


def _get(
    summary: str, parameters: list[dict[str, Any]] | None = None, media_type: str = "application/json"
) -> dict[str, Any]:
    answer = {"description": "The answer.", "content": {media_type: {}}}
    responses = {"200": answer, "default": _ERROR}
    return {"get": {"summary": summary, "parameters": parameters or [], "responses": responses}}


def _post(summary: str) -> dict[str, Any]:
    """A path that takes text."""
    described = _get(summary)["get"]
    body = {"required": True, "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"post": {**described, "requestBody": body}}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _in_query(name: str, description: str, *, required: bool = False, choices: Sequence[str] = ()) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "enum": list(choices)} if choices else {"type": "string"}
    return {"name": name, "in": "query", "description": description, "required": required, "schema": schema}


def _parameter(param: "Param") -> dict[str, Any]:
    made = _in_query(
        param.name,
        f"{param.help} It is {param.expected}.".lstrip(),
        required=param.required,
        choices=param.choices,
    )
    if param.default is not None:
        made["schema"]["default"] = param.default
    return made
