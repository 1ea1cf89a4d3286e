"""The scenarios as data."""

import pytest

from telemetry.connector.messages import meaning_of_close
from telemetry.semconv import ConnectionError, DisconnectReason, Outcome, Part, State
from telemetry.simulator.scenarios import (
    MIX,
    MIX_WEIGHTS,
    SCENARIOS,
    Accept,
    Answer,
    Close,
    Load,
    Scenario,
    Start,
    Vanish,
)

ALL = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


@ALL
def test_description(scenario: Scenario) -> None:
    """Every scenario is described by one sentence, and its name can stand in a URL."""
    assert scenario.description.endswith(".")
    assert ". " not in scenario.description
    assert scenario.name.isidentifier()
    assert scenario.name != MIX


@ALL
def test_expectation_is_whole(scenario: Scenario) -> None:
    """A failure says what, where, why and whether a retry may help; a connection says how it ends."""
    expected = scenario.expected

    failure = (expected.error, expected.step, expected.detail, expected.retryable)
    if expected.outcome is Outcome.FAILED:
        assert None not in failure
        assert expected.part is None or expected.part.state is expected.step
        assert (expected.reason, expected.ended_by) == (None, None)
    else:
        assert failure == (None, None, None, None)
    if expected.outcome is Outcome.CONNECTED:
        assert expected.reason is not None
        assert expected.ended_by is not None


@ALL
def test_close_code_agrees_with_protocol(scenario: Scenario) -> None:
    """Where a scenario ends with a close code, it expects what the protocol's table says that the code means."""
    last = scenario.script[-1] if scenario.script else None
    if not isinstance(last, Close) or scenario.client.gives_up_s:
        return
    meaning = meaning_of_close(last.code)

    if Start() in scenario.script:
        assert scenario.expected.reason is meaning.reason
    else:
        expected = scenario.expected
        assert (expected.error, expected.detail, expected.retryable) == (
            meaning.error,
            meaning.detail,
            meaning.retryable,
        )


@ALL
def test_script_follows_protocol(scenario: Scenario) -> None:
    """A script keeps the order of the protocol: accept, load, answer, start."""
    order = [type(action) for action in scenario.script if isinstance(action, Accept | Load | Answer | Start)]

    assert order == [Accept, Load, Answer, Start][: len(order)]


@ALL
def test_accepted_agrees_with_script(scenario: Scenario) -> None:
    """A sessionId is expected exactly where the script gives one and the client's own media do not fail before."""
    accepts = any(isinstance(action, Accept) for action in scenario.script)

    assert scenario.expected.accepted == (accepts and scenario.expected.part is not Part.USER_MEDIA)


def test_every_error_and_reason_has_a_scenario() -> None:
    """Each of the six errors, each disconnect reason and a death in each step can be played."""
    expected = [scenario.expected for scenario in SCENARIOS.values()]
    deaths = {s.expected.step for s in SCENARIOS.values() if Vanish() in s.script}

    assert {e.error for e in expected} - {None} == set(ConnectionError)
    assert {e.reason for e in expected} - {None} == set(DisconnectReason)
    assert deaths == {State.SEARCHING, State.DOWNLOADING, State.CONNECTING, None}


def test_mix_names_scenarios() -> None:
    """The mix draws from scenarios that exist, need nothing of the client, and mostly connect."""
    connected = sum(w for n, w in MIX_WEIGHTS.items() if SCENARIOS[n].expected.outcome is Outcome.CONNECTED)

    assert MIX_WEIGHTS.keys() <= SCENARIOS.keys()
    assert all(SCENARIOS[name].client.requested_media == "none" for name in MIX_WEIGHTS)
    assert 0.8 < connected / sum(MIX_WEIGHTS.values()) < 0.97
