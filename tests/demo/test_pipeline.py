"""The demonstration: what it plans, and a small one for real."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from telemetry.demo import pipeline
from telemetry.simulator.scenarios import MIX_WEIGHTS, SCENARIOS


def test_the_plan_has_every_scenario_and_a_working_day() -> None:
    """Every scenario is played at least once; what is beyond comes from the mix, mostly sessions that work."""
    visits = pipeline.plan(300, seed=0)
    counts = Counter(visit.scenario for visit in visits)

    assert len(visits) == 300
    assert set(counts) == set(SCENARIOS)
    assert all(counts[name] == 1 for name in set(SCENARIOS) - set(MIX_WEIGHTS))
    assert counts["steady"] > 100
    assert len({visit.kiosk for visit in visits}) == pipeline.KIOSKS


def test_the_seed_decides_the_plan() -> None:
    """The same seed plans the same, another one plans otherwise, and a short plan has no more than was asked for."""
    assert pipeline.plan(50, seed=1) == pipeline.plan(50, seed=1)
    assert pipeline.plan(50, seed=1) != pipeline.plan(50, seed=2)
    assert len(pipeline.plan(5, seed=0)) == 5


def test_the_most_telling_failure_is_told() -> None:
    """Of several failed attempts the demonstration tells one whose story shows much; of one, that one."""
    assert pipeline.worth_telling({"busy": "a", "never_answers_ice": "b"}) == "b"
    assert pipeline.worth_telling({"busy": "a"}) == "a"


@pytest.mark.real
@pytest.mark.xdist_group("end_to_end")
def test_a_small_demonstration(tmp_path: Path) -> None:
    """`demo --once` plays real sessions, prints report and story on stdout, keeps the store, and ends with 0.

    The commands that it prints name the store; no address is printed that nobody answers at by then.
    """
    store = tmp_path / "demo.duckdb"
    arguments = ("demo", "--once", "--sessions", "12", "--seed", "3", "--pages-port", "0", "--store", str(store))

    ran = subprocess.run(
        [sys.executable, "-m", "telemetry", *arguments], capture_output=True, text=True, timeout=100, check=False
    )

    assert (ran.returncode, ran.stderr.count("Traceback")) == (0, 0), ran.stderr
    assert "sessions: 12 of 12" in ran.stderr
    assert f"telemetry report failure_rate --by reason --since 1h --store {store}\n" in ran.stdout
    assert "failure_ratio" in ran.stdout
    assert re.search(f"^telemetry session \\S+ --store {store}$", ran.stdout, re.MULTILINE)
    assert "http://" not in ran.stdout
    assert "\nEVIDENCE\n" in ran.stdout
    assert store.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.duckdb"]


@pytest.mark.real
@pytest.mark.xdist_group("end_to_end")
def test_the_pages_stay_open_until_ctrl_c() -> None:
    """Without `--once` the pages stay at the printed address until Ctrl-C, which is the good end of it.

    The address is of the time in which the sessions were played.
    """
    arguments = ("demo", "--sessions", "2", "--seed", "5", "--pages-port", "0")
    with subprocess.Popen(
        [sys.executable, "-m", "telemetry", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        address = next(line.split()[-1] for line in process.stderr if line.startswith("look around"))
        page = httpx.get(address, trust_env=False)
        url = httpx.URL(address)
        began = httpx.get(url.copy_with(path="/api/reports/recent"), params=url.params, trust_env=False).json()["rows"]
        assert "Ctrl-C" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=40)

    assert page.status_code == 200
    assert len(began) >= 2
    assert process.returncode == 0


@pytest.mark.real
@pytest.mark.xdist_group("end_to_end")
def test_ctrl_c_ends_the_demonstration_and_its_processes(tmp_path: Path) -> None:
    """Ctrl-C in the middle reaches all processes of the demonstration; they end, with 130 and no traceback."""
    arguments = ("demo", "--sessions", "2000", "--pages-port", "0", "--store", str(tmp_path / "demo.duckdb"))
    with subprocess.Popen(
        [sys.executable, "-m", "telemetry", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        wait_until(lambda: (tmp_path / "demo.duckdb.serve.json").exists())
        os.killpg(process.pid, signal.SIGINT)
        told, narrated = process.communicate(timeout=40)

    assert process.returncode == 130
    assert told == ""
    assert "Traceback" not in narrated
    wait_until(lambda: is_gone(process.pid), limit_s=10)


def is_gone(group: int) -> bool:
    """Whether no process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(true: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Look until it is so."""
    until = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)
