"""Every example runs, against a store as a reader would have one."""

from pathlib import Path

from telemetry.simulator import fleet
from telemetry.store.duck import Store
from tests.examples import funnel_and_survival


def test_funnel_and_survival(tmp_path: Path) -> None:
    """The example draws a funnel that narrows and a curve that falls."""
    path = tmp_path / "store.duckdb"
    with Store.open(path) as store:
        store.commit(list(fleet.generate(400, days=1.0, sample_every_s=0)))

    text = funnel_and_survival.main(str(path), since="2026-09-21", until="2026-09-23")

    funnel, curve = text.split("\n\n")
    bars = [line.count("█") for line in funnel.splitlines()[1:]]
    assert bars[0] == funnel_and_survival.WIDTH
    assert bars == sorted(bars, reverse=True)
    falling = [line.count("█") for line in curve.splitlines()[1:]]
    assert len(falling) > 5
    assert falling == sorted(falling, reverse=True)
