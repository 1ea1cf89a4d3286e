"""The wire form of every signalling message, and what is refused."""

import json
import re
from contextlib import suppress
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import settings
from telemetry.connector import messages
from telemetry.connector.failures import CAUSES
from telemetry.connector.messages import (
    CLOSE_CODES,
    MAX_INTEGER,
    MAX_MESSAGE_BYTES,
    Accepted,
    Activity,
    Answer,
    Assets,
    Bye,
    Hello,
    IceServer,
    Offer,
    Queued,
    Ready,
    Started,
    decode,
    encode,
    meaning_of_close,
    type_of,
)
from telemetry.errors import RemoteProtocolError
from telemetry.semconv import ConnectionError, DisconnectReason

EXAMPLES = [
    (Hello("a1", "dp/1"), {"attemptId": "a1", "client": "dp/1", "resume": None, "microphone": False, "camera": False}),
    (
        Hello("a1", "dp/1", "s-1", True, True),
        {"attemptId": "a1", "client": "dp/1", "resume": "s-1", "microphone": True, "camera": True},
    ),
    (Queued(3), {"position": 3}),
    (
        Accepted("s-1", True, (IceServer("stun:a"), IceServer("turn:b", "u", "c")), 5, "eu", "i"),
        {
            "sessionId": "s-1",
            "resumed": True,
            "iceServers": [
                {"urls": "stun:a", "username": None, "credential": None},
                {"urls": "turn:b", "username": "u", "credential": "c"},
            ],
            "idleLimitMs": 5,
            "region": "eu",
            "instance": "i",
        },
    ),
    (Accepted("s-1"), {"sessionId": "s-1", "resumed": False, "iceServers": [], "idleLimitMs": 0}),
    (Assets(1, 2), {"loadedBytes": 1, "totalBytes": 2}),
    (Ready(), {}),
    (Offer("v=0"), {"sdp": "v=0"}),
    (Answer("v=0"), {"sdp": "v=0"}),
    (Started(), {}),
    (Activity(), {}),
    (Bye(True), {"keep": True}),
]


@pytest.mark.parametrize(("message", "body"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_wire_form(message, body):
    """A message is written with its type and camelCase keys, and reading it gives it back."""
    text = encode(message)

    assert json.loads(text) == {"type": type_of(message)} | body
    assert decode(text) == message


def test_specification_names_every_field():
    """SIGNALLING.md's tables name every message and field that travels, and every close code with a meaning."""
    page = (settings.data_folder("queries").parent / "telemetry/connector/SIGNALLING.md").read_text()

    for message, _ in EXAMPLES:
        assert f"| `{type_of(message)}` |" in page
        for field in fields(message):
            head, *rest = field.name.split("_")
            assert f"`{head + ''.join(word.capitalize() for word in rest)}`" in page
    for code in CLOSE_CODES:
        assert re.search(rf"^\|.*\b{code}\b", page, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{}", "binary"),
        ("x" * (MAX_MESSAGE_BYTES + 1), "limit"),
        ("{junk", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "unknown type"),
        ('{"type":7}', "unknown type"),
        ('{"type":"sing"}', "unknown type"),
        ('{"type":"queued"}', "without all of its fields"),
        ('{"type":"queued","position":null}', "without all of its fields"),
        ('{"type":"queued","position":0}', "position"),
        ('{"type":"queued","position":true}', "position"),
        ('{"type":"queued","position":1.5}', "position"),
        ('{"type":"queued","position":"1"}', "position"),
        (f'{{"type":"queued","position":{MAX_INTEGER + 1}}}', "position"),
        ('{"type":"accepted","sessionId":""}', "sessionId"),
        ('{"type":"accepted","sessionId":7}', "sessionId"),
        (f'{{"type":"accepted","sessionId":"{"x" * 129}"}}', "sessionId"),
        ('{"type":"accepted","sessionId":"a b"}', "sessionId"),
        ('{"type":"accepted","sessionId":"a\\n"}', "sessionId"),
        ('{"type":"accepted","sessionId":"a","resumed":1}', "resumed"),
        ('{"type":"accepted","sessionId":"a","iceServers":{}}', "iceServers"),
        ('{"type":"accepted","sessionId":"a","iceServers":[1]}', "iceServers"),
        ('{"type":"accepted","sessionId":"a","iceServers":[{"urls":[]}]}', "iceServers"),
        ('{"type":"accepted","sessionId":"a","iceServers":[{"urls":"stun:a","username":1}]}', "iceServers"),
        (json.dumps({"type": "accepted", "sessionId": "a", "iceServers": [{"urls": "stun:a"}] * 17}), "iceServers"),
        (f'{{"type":"accepted","sessionId":"a","region":"{"x" * 65}"}}', "region"),
        ('{"type":"answer","sdp":[]}', "sdp"),
    ],
)
def test_refused(text, says):
    """What is not a message is refused with a reason that repeats nothing of it."""
    with pytest.raises(RemoteProtocolError, match=says):
        decode(text)


def test_unknown_keys_are_ignored():
    """A newer server may say more than this client knows."""
    assert decode('{"type":"queued","position":2,"mood":"fine"}') == Queued(2)


@given(
    st.text()
    | st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5).map(
        json.dumps
    )
)
def test_any_bytes(data):
    """Whatever arrives is a message or a RemoteProtocolError."""
    with suppress(RemoteProtocolError):
        assert decode(data)


def test_credentials_stay_out_of_reprs():
    """The repr of a message shows no TURN credential."""
    assert "secret" not in repr(Accepted("s", ice_servers=(IceServer("turn:a", "user", "secret"),)))


@pytest.mark.parametrize("code", CLOSE_CODES)
def test_close_codes_agree_with_failures(code):
    """A close code and its detail mean the same error and the same advice about retrying."""
    meaning = CLOSE_CODES[code]
    cause = CAUSES.get(meaning.detail)

    assert meaning_of_close(code) is meaning
    if cause:
        assert (cause.error, cause.retryable) == (meaning.error, meaning.retryable)


def test_unknown_close_code():
    """A close code without a meaning is a server failure that names the number."""
    meaning = meaning_of_close(4999)

    assert (meaning.error, meaning.detail) == (ConnectionError.SERVER_CONNECTION_FAILED, "close_4999")
    assert (meaning.reason, meaning.retryable) == (DisconnectReason.CONNECTION_LOST, False)


def test_module_names_its_types_once():
    """Every message class is on the wire under its own lower-case name."""
    assert {type_of(message) for message, _ in EXAMPLES} == set(messages._BY_TYPE)
