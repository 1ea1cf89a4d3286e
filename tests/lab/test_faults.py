"""A few faults of the network, made for real; `make lab` makes them all."""

from pathlib import Path

import pytest

from tests.lab.faults import FAULTS, QUICK
from tests.lab.network import lacks
from tests.lab.play import Result, play_all

LACK = lacks()

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(LACK is not None, reason=f"no fault of the network was made: {LACK}"),
]


async def test_the_verdict_names_the_cause(tmp_path: Path) -> None:
    """Each fault is judged by the rule of its cause; the owner is right, or left open with the true one among them."""
    ended: list[Result] = []
    results = await play_all([FAULTS[name] for name in QUICK], tmp_path, ended.append)

    assert {result.fault.name for result in ended} == set(QUICK)
    assert [result.fault.name for result in results if not result.judged.honest] == []
    assert [result.complaints for result in results if result.complaints] == []
