"""A killed process loses nothing that it acknowledged. The long version is `make crash-test`."""

import pytest

from tests.crash.kill import MODES, run


@pytest.mark.real
@pytest.mark.timeout(300)
def test_a_handful_of_kills() -> None:
    """Killed under load, in a checkpoint, prune, backup or migration: nothing acknowledged is lost, nothing doubled."""
    tally = run(len(MODES), seed=7, longest_s=0.5)

    assert tally.kills == len(MODES)
    assert tally.requests > 0
    assert tally.passed, tally
