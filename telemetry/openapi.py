"""The OpenAPI description of the query API, made from the catalogue of reports. No I/O, no clock."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from telemetry import __version__

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
    """Describe every path of the query API, one for each report."""
    paths = {
        "/api/health": _get("Is the server alive? Needs no token."),
        "/api/store": _get("What does the store hold?"),
        "/api/reports": _get("Which reports are there, with their questions, parameters and SQL?"),
        "/api/sessions/{id}": _get(
            "What happened to one session? By sessionId, attempt, episode or trace id, or a unique beginning of one.",
            [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
        ),
    }
    paths["/api/capsules/{id}"] = _get(
        "Everything about one attempt as one scrubbed file that opens offline; by the same ids.",
        [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
    )
    for report in catalogue.values():
        paths[f"/api/reports/{report.name}"] = _get(report.question, [*map(_parameter, report.params), _FORMAT])
    return {
        "openapi": "3.1.0",
        "info": {"title": "dp-telemetry query API", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}, {}],
    }


def _get(summary: str, parameters: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    answer = {"description": "The answer.", "content": {"application/json": {}}}
    responses = {"200": answer, "default": _ERROR}
    return {"get": {"summary": summary, "parameters": parameters or [], "responses": responses}}


def _parameter(param: "Param") -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if param.choices:
        schema["enum"] = list(param.choices)
    if param.default is not None:
        schema["default"] = param.default
    return {
        "name": param.name,
        "in": "query",
        "description": f"{param.help} It is {param.expected}.".lstrip(),
        "required": param.required,
        "schema": schema,
    }
