"""Verdicts of faults whose true cause is known, played for real."""

import pytest

from telemetry.semconv import Outcome
from telemetry.simulator.scenarios import SCENARIOS
from telemetry.support.rule import Certainty
from tests.lab.truth import TRUTHS, Judged, matrix, scenarios

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("end_to_end"),
    pytest.mark.timeout(300),  # all scenarios are played before the first is looked at
]


@pytest.fixture(scope="module")
def judged() -> dict[str, Judged]:
    """Every scenario, played by the real connector and judged."""
    return {one.fault: one for one in scenarios()}


def test_every_scenario_has_a_truth():
    """Somebody wrote down what is truly the matter in every scenario."""
    assert set(TRUTHS) == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_verdict_is_true(judged, name):
    """The verdict names the cause, and the true owner or, where the client cannot see it, suspects that include it."""
    one = judged[name]

    assert one.verdict.rule == one.truth.rule
    assert one.named or one.abstained


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_wrong_certainty(judged, name):
    """A verdict that calls itself certain names the true owner, and every failure says what to do next."""
    one = judged[name]

    assert one.named or one.verdict.certainty is not Certainty.CERTAIN
    assert one.verdict.outcome == Outcome.CONNECTED or one.verdict.evidence
    assert one.verdict.next


def test_matrix_tells_right_from_wrong(judged):
    """The printed matrix names a verdict that is wrong, and none when all are right."""
    right = judged["busy"]
    wrong = Judged("busy", judged["silent"].truth, right.verdict)

    assert "WRONG" not in matrix([right])
    assert "WRONG busy: queue.busy (capacity), truly queue.silent_server (server)" in matrix([wrong])
