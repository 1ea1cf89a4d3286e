"""The fast decoders say what the readable one says, about any bytes."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from telemetry.errors import DecodeError, PayloadTooLarge
from telemetry.receiver import fragments, otlp, scanner
from tests.support.otlp import RECEIVED_NS, Request, attribute, mutated, request, requests, span

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def outcome(decode: Any, body: bytes) -> Any:
    """What a decoder makes of a body, or which error it raises."""
    try:
        decoded = decode(body, RECEIVED_NS)
    except (DecodeError, PayloadTooLarge) as error:
        return type(error), error.message
    decoded.table.validate(full=True)
    return decoded.table.to_pylist(), decoded.rejected


def same(body: bytes) -> None:
    """All decoders agree, also when the fast ones see the attributes for the second time."""
    expected = outcome(otlp.decode_protobuf, body)

    for _ in range(2):
        assert outcome(fragments.decode_protobuf, body) == expected
        assert outcome(scanner.decode_protobuf, body) == expected


@QUICK
@given(requests)
def test_any_request(message: Request) -> None:
    """Any request, valid or not, has the same rows and the same rejections."""
    same(message.SerializeToString())


@QUICK
@given(mutated(requests.map(lambda message: message.SerializeToString())))
def test_any_bytes(body: bytes) -> None:
    """Any bytes have the same rows, the same rejections or the same error."""
    same(body)


@pytest.mark.parametrize(
    "attributes",
    [
        [attribute("a", 1), attribute("b", 2), attribute("a", 3)],
        [attribute("session.id", "x"), attribute("session.id", "y")],
        [attribute("session.id", "x"), attribute("session.id", 1), attribute("z", 1)],
        [attribute("session.id", 1), attribute("session.id", "x"), attribute("server.port", 4)],
        [attribute("k", "v" * 1000)],
    ],
)
def test_repeated_keys(attributes: list[Any]) -> None:
    """A key that comes twice ends in the same place with the same value."""
    same(request(span(attributes=attributes), span(attributes=[attribute("server.port", 1)])).SerializeToString())


@pytest.mark.parametrize(
    ("fast", "slow"),
    [
        (fragments, otlp),
        pytest.param(
            scanner, fragments, marks=pytest.mark.skipif(not scanner.compiled(), reason="no C compiler at installation")
        ),
    ],
)
def test_usual_requests_take_the_fast_way(fast: Any, slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request as SDKs send it is not left to a slower decoder."""
    monkeypatch.setattr(slow, "decode_protobuf", None)
    message = request(
        span(attributes=[attribute("session.id", "s"), attribute("n", 1), attribute("server.port", "443")], flags=257),
        span(parent_span_id=b"12345678", status={"code": 2, "message": "m"}, events=[{"name": "e"}], links=[{}]),
        **{"service.name": "kiosk", "cloud.region": "r"},
    )

    assert fast.decode_protobuf(message.SerializeToString(), RECEIVED_NS).table.num_rows == 2


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many different attributes arrive, only so many are remembered, and never a long one."""
    monkeypatch.setattr(fragments, "MAX_REMEMBERED", 10)
    monkeypatch.setattr(fragments, "_meanings", {})
    for number in range(50):
        body = request(span(attributes=[attribute("n", number), attribute("t", f"{number}" * 300)]))
        fragments.decode_protobuf(body.SerializeToString(), RECEIVED_NS)

    assert len(fragments._meanings) <= 10
    assert max(map(len, fragments._meanings)) <= fragments.MAX_REMEMBERED_BYTES
