"""Read OTLP trace requests in JSON, strictly, one span at a time. No I/O, no clock."""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from telemetry.errors import DecodeError
from telemetry.receiver import otlp, parts
from telemetry.receiver.otlp import Decoded, Refused, Row, Shell

MAX_JSON_NESTING: Final = 200
"""Objects and lists around one another; an attribute takes four of them for each of its levels.
Where Python's own parser gives up depends on how deep in calls it begins."""

_DIGITS: Final = re.compile(r"-?[0-9]{1,20}")
_INT64: Final = (-(2**63), 2**63 - 1)
_UINT64: Final = (0, 2**64 - 1)
_UINT32: Final = (0, 2**32 - 1)
_INT32: Final = (-(2**31), 2**31 - 1)


def decode_json(body: bytes, received_ns: int) -> Decoded:
    """Decode an ExportTraceServiceRequest in OTLP's JSON: lowerCamelCase keys, hexadecimal ids, numbers for enums.

    Args:
        received_ns: nanoseconds UTC, the receiver's clock.

    Raises:
        DecodeError: the body as a whole is unreadable.
        PayloadTooLarge: it would not stay within limits when decoded.
    """
    request = read_json(body)
    batch = otlp.Batch(received_ns)
    scopes = 0
    try:
        resources = _objects(request, "resourceSpans")
        parts.check_repeated(len(resources), "resources")
        for resource_spans in resources:
            resource = otlp.reading(_read_resource, resource_spans)
            for scope_spans in _objects(resource_spans, "scopeSpans"):
                scopes += 1
                parts.check_repeated(scopes, "scopes")
                shell = otlp.joined(resource, otlp.reading(_read_scope, scope_spans))
                for item in _objects(scope_spans, "spans"):
                    batch.add(shell, read_span, item)
    except Refused as error:
        raise DecodeError(f"the body is no OTLP trace request in JSON: {error.reason}") from error
    return batch.decoded()


def read_json(body: bytes) -> Mapping[str, Any]:
    """Parse a JSON object strictly.

    Raises:
        DecodeError: it is not UTF-8, not JSON, nested too deep, or not an object.
        PayloadTooLarge: it has too many parts.
    """
    if parts.json_depth(body) > MAX_JSON_NESTING:
        raise DecodeError(f"the body is JSON nested deeper than {MAX_JSON_NESTING} levels")
    try:
        request = json.loads(body.decode("utf-8"), parse_constant=_no_constant) if body else {}
    except ValueError as error:  # not UTF-8, not JSON, or an integer of thousands of digits
        raise DecodeError(f"the body is not JSON in UTF-8: {str(error)[:200]}") from error
    if not isinstance(request, dict):
        raise DecodeError("the body is JSON, but not an object")
    return request


def object_at(text: str) -> Any:
    """The object in JSON that a text begins with, whatever stands behind it; read as `read_json` does."""
    return _decoder.raw_decode(text)[0]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON; OTLP writes it as a string")


_decoder: Final = json.JSONDecoder(parse_constant=_no_constant)


def _read_resource(frame: Mapping[str, Any]) -> Shell:
    resource = _object(frame, "resource")
    refs = [
        otlp.present(
            schema_url=_string(ref, "schemaUrl"),
            type=_string(ref, "type"),
            id_keys=_strings(ref, "idKeys"),
            description_keys=_strings(ref, "descriptionKeys"),
        )
        for ref in _objects(resource, "entityRefs")
    ]
    return otlp.resource_row(
        _attributes(resource), _number(resource, "droppedAttributesCount"), _string(frame, "schemaUrl"), refs
    )


def _read_scope(frame: Mapping[str, Any]) -> Shell:
    scope = _object(frame, "scope")
    return otlp.scope_row(
        _string(scope, "name"),
        _string(scope, "version"),
        _attributes(scope),
        _number(scope, "droppedAttributesCount"),
        _string(frame, "schemaUrl"),
    )


def read_span(item: Mapping[str, Any]) -> Row:
    """What a span says itself.

    Raises:
        Refused: it breaks a rule.
    """
    status = _object(item, "status")
    return {
        **otlp.ids(_hex(item, "traceId"), _hex(item, "spanId"), _hex(item, "parentSpanId")),
        "trace_state": _string(item, "traceState") or None,
        "flags": _number(item, "flags") or None,
        "name": _string(item, "name"),
        "kind": otlp.named(otlp.KINDS, _enum(item, "kind")),
        **otlp.times(_number(item, "startTimeUnixNano", _UINT64), _number(item, "endTimeUnixNano", _UINT64)),
        "status_code": otlp.named(otlp.STATUS_CODES, _enum(status, "code")),
        "status_message": _string(status, "message") or None,
        **otlp.attribute_columns(_attributes(item)),
        "dropped_attributes_count": _number(item, "droppedAttributesCount") or None,
        "events": otlp.json_text([_event(item) for item in _objects(item, "events")]),
        "dropped_events_count": _number(item, "droppedEventsCount") or None,
        "links": otlp.json_text([_link(item) for item in _objects(item, "links")]),
        "dropped_links_count": _number(item, "droppedLinksCount") or None,
    }


def _event(item: Mapping[str, Any]) -> Row:
    return {
        "time_ns": _number(item, "timeUnixNano", _UINT64),
        "name": _string(item, "name"),
        **otlp.present(attributes=_attributes(item), dropped_attributes_count=_number(item, "droppedAttributesCount")),
    }


def _link(item: Mapping[str, Any]) -> Row:
    return {
        "trace_id": _hex(item, "traceId").hex(),
        "span_id": _hex(item, "spanId").hex(),
        **otlp.present(
            trace_state=_string(item, "traceState"),
            attributes=_attributes(item),
            dropped_attributes_count=_number(item, "droppedAttributesCount"),
            flags=_number(item, "flags"),
        ),
    }


def _attributes(owner: Mapping[str, Any], key: str = "attributes", depth: int = 0) -> Row:
    return {_string(pair, "key"): _value(_object(pair, "value"), depth) for pair in _objects(owner, key)}


def _value(value: Mapping[str, Any], depth: int = 0) -> Any:
    if value.get("stringValue") is not None:
        return _string(value, "stringValue")
    if value.get("boolValue") is not None:
        return _boolean(value, "boolValue")
    if value.get("intValue") is not None:
        return _number(value, "intValue", _INT64)
    if value.get("doubleValue") is not None:
        return otlp.double(_double(value, "doubleValue"))
    if value.get("bytesValue") is not None:
        return otlp.octets(_base64(value, "bytesValue"))
    if value.get("arrayValue") is not None:
        depth = otlp.deeper(depth)
        return [_value(item, depth) for item in _objects(_object(value, "arrayValue"), "values")]
    if value.get("kvlistValue") is not None:
        return otlp.mapping(_attributes(_object(value, "kvlistValue"), "values", otlp.deeper(depth)))
    return None


def _object(owner: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = owner.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(f"{key} is not an object")
    return value


def _objects(owner: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    values = owner.get(key)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise Refused(f"{key} is not a list of objects")
    return values


def _strings(owner: Mapping[str, Any], key: str) -> list[str]:
    values = owner.get(key)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Refused(f"{key} is not a list of texts")
    return [_whole(value) for value in values]


def _string(owner: Mapping[str, Any], key: str) -> str:
    value = owner.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(f"{key} is not a text")
    return _whole(value)


def _whole(text: str) -> str:
    """Text that UTF-8 can carry: JSON can escape half of a surrogate pair, which becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _boolean(owner: Mapping[str, Any], key: str) -> bool:
    value = owner.get(key)
    if not isinstance(value, bool):
        raise Refused(f"{key} is not true or false")
    return value


def _number(owner: Mapping[str, Any], key: str, limits: tuple[int, int] = _UINT32) -> int:
    """An integer, written as a number or as a string."""
    value = owner.get(key)
    if value is None:
        return 0
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not limits[0] <= value <= limits[1]:
        raise Refused(f"{key} is not an integer from {limits[0]} to {limits[1]}")
    return value


def _enum(owner: Mapping[str, Any], key: str) -> int:
    value = owner.get(key)
    if isinstance(value, str):
        raise Refused(f"{key} is a text; OTLP writes enums as numbers")
    return _number(owner, key, _INT32)


def _double(owner: Mapping[str, Any], key: str) -> float:
    value = owner.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise Refused(f"{key} is not a number")
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise Refused(f"{key} is not a number") from error


def _hex(owner: Mapping[str, Any], key: str) -> bytes:
    try:
        return binascii.unhexlify(_string(owner, key))
    except ValueError as error:
        raise Refused(f"{key} is not hexadecimal") from error


def _base64(owner: Mapping[str, Any], key: str) -> bytes:
    """Bytes from either alphabet of base64, padded or not, as the JSON mapping of protobuf accepts them."""
    text = _string(owner, key).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise Refused(f"{key} is not base64") from error
