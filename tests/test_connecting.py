"""`connect` and `probe` against a real simulator, their spans in a real store."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from telemetry import probe, settings
from telemetry.cli.app import root
from telemetry.cli.connecting import _pairs
from telemetry.errors import UsageError
from telemetry.probe import Result as Probed
from telemetry.semconv import Outcome
from telemetry.serve import Addresses, Doors, serving
from telemetry.simulator.server import Simulator
from telemetry.source import opened


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A digital-person server in a hurry."""
    async with Simulator(speed=10) as simulator:
        yield simulator


@pytest.fixture
async def pipeline(tmp_path: Path) -> AsyncIterator[Addresses]:
    """A store that receives."""
    async with serving(tmp_path / "store.duckdb", Doors(grpc_port=0, http_port=0, pages_port=0)) as addresses:
        yield addresses


async def run(*arguments: str) -> Result:
    """One command, beside the servers of the test."""
    result = await asyncio.to_thread(CliRunner().invoke, root, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


async def asked(addresses: Addresses, report: str, **params: object) -> list[dict[str, object]]:
    """The rows of a report."""

    def ask() -> list[dict[str, object]]:
        with opened(addresses.pages) as source:
            rows: list[dict[str, object]] = source.report(report, params).to_pylist()
            return rows

    return await asyncio.to_thread(ask)


@pytest.mark.real
async def test_connect_prints_the_session_and_its_progress(simulator: Simulator, pipeline: Addresses) -> None:
    """stdout is the sessionId alone, stderr the progress; the attempt is in the store with its attributes."""
    url = simulator.url("queue_admitted")

    result = await run(
        "connect", url, "--stay", "0.1", "--endpoint", pipeline.otlp_grpc, "--attribute", "cloud.region=mars"
    )
    rows = await asked(pipeline, "recent", region="mars")

    assert result.exit_code == 0
    assert [row["session_id"] for row in rows] == [result.stdout.strip()]
    progress = [line.split()[2:] for line in result.stderr.splitlines() if "%" in line.split()[3:4]]
    assert [words[2] for words in progress] == [
        "SearchingForDigitalPerson",
        "DownloadingAssets",
        "ConnectingToDigitalPerson",
        "Connected",
        "Disconnected",
    ]
    assert "place 3 in the queue" in result.stderr


@pytest.mark.real
async def test_a_failed_connect_leads_to_its_story(simulator: Simulator, pipeline: Addresses) -> None:
    """Exit code 3, nothing on stdout, and the attempt id on stderr opens the story."""
    result = await run("connect", simulator.url("busy"), "--endpoint", pipeline.otlp_grpc)
    attempt_id = result.stderr.rsplit("telemetry session ", 1)[1].split()[0]
    told = await run("session", attempt_id, "--store", pipeline.pages, "--format", "ticket")

    assert (result.exit_code, result.stdout) == (3, "")
    assert "noScene in SearchingForDigitalPerson/queue (busy)" in result.stderr
    assert "Traceback" not in result.stderr
    assert attempt_id in told.stdout


@pytest.mark.real
@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://127.0.0.1:1/", "invalid_url"),
        ("not a url", "invalid_url"),
        ("ws://127.0.0.1:1/", "tcp_refused"),
    ],
)
async def test_a_url_that_leads_nowhere(url: str, detail: str) -> None:
    """A wrong URL and an unreachable server fail like any attempt, with their detail."""
    result = await run("connect", url, "--no-trace")

    assert (result.exit_code, result.stdout) == (3, "")
    assert f"({detail})" in result.stderr


@pytest.mark.real
async def test_the_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of the digital-person server is never an argument, and never shown."""
    async with Simulator(speed=10, token="secret-token") as simulator:
        url = simulator.url("steady")
        monkeypatch.delenv(settings.SESSION_TOKEN_VARIABLE, raising=False)
        refused = await run("connect", url, "--no-trace", "--stay", "0")
        monkeypatch.setenv(settings.SESSION_TOKEN_VARIABLE, "secret-token")
        admitted = await run("connect", url, "--no-trace", "--stay", "0")

    assert refused.exit_code == 3
    assert "http_401" in refused.stderr
    assert admitted.exit_code == 0
    assert "secret" not in refused.output + admitted.output


@pytest.mark.real
async def test_without_a_receiver_nothing_waits(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where nobody takes spans, that is said, the session goes on without, and no story is promised."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(settings.STORE_VARIABLE, str(tmp_path / "none.duckdb"))
    (tmp_path / "none.duckdb.serve.json").write_text('{"otlp_grpc": "http://127.0.0.1:1"}')

    result = await run("connect", simulator.url("steady"), "--stay", "0")
    failed = await run("connect", simulator.url("busy"))

    assert (result.exit_code, failed.exit_code) == (0, 3)
    assert "nobody takes spans at http://127.0.0.1:1" in result.stderr
    assert "nobody takes spans" in failed.stderr
    assert "tells its story" not in failed.stderr


@pytest.mark.real
async def test_spans_that_are_refused_are_told_at_the_end(simulator: Simulator, tmp_path: Path) -> None:
    """Where a receiver refuses, stderr says so once, after the progress, and promises no story."""
    doors = Doors(grpc_port=0, http_port=0, pages_port=0, tokens=("another",))
    async with serving(tmp_path / "store.duckdb", doors) as addresses:
        result = await run("connect", simulator.url("busy"), "--endpoint", addresses.otlp_grpc)

    progress, told = result.stderr.split("this is not recorded, or only in part: ")
    assert result.exit_code == 3
    assert "Disconnected" in progress
    assert "UNAUTHENTICATED" not in progress
    assert "UNAUTHENTICATED" in told.splitlines()[0]
    assert "tells its story" not in told


@pytest.mark.parametrize("command", ["connect", "probe"])
def test_media_come_from_a_file_that_exists(command: str) -> None:
    """A file of media that is not there is wrong usage, before anything is connected."""
    arguments = [command, "ws://127.0.0.1:1/", "--no-trace", "--media", "microphone", "--media-from", "nosuch.wav"]
    result = CliRunner().invoke(root, arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no file nosuch.wav; --media-from takes one" in result.stderr


@pytest.mark.real
async def test_probes_are_marked_and_summed_up(simulator: Simulator, pipeline: Addresses) -> None:
    """A probe's sessions are synthetic, so that rates leave them out; the summary is data on stdout."""
    arguments = ("--count", "4", "--concurrency", "2", "--stay", "0.1", "--endpoint", pipeline.otlp_grpc)

    good = await run("probe", simulator.url("steady"), *arguments, "--format", "json")
    bad = await run("probe", simulator.url("asset_missing"), *arguments)
    people = await asked(pipeline, "recent")
    everyone = await asked(pipeline, "recent", synthetic=True)

    summary = json.loads(good.stdout)
    assert good.exit_code == 0
    assert (summary["attempts"], summary["connected"], summary["failed"]) == (4, 4, 0)
    assert summary["connect_p50_s"] > 0
    assert bad.exit_code == 3
    assert bad.stdout.startswith("0 of 4 connected\n4 × serverConnectionFailed in DownloadingAssets (asset_failed)")
    assert (len(people), len(everyone)) == (0, 8)


@pytest.mark.real
async def test_ctrl_c_ends_a_probe_with_a_summary(simulator: Simulator, pipeline: Addresses) -> None:
    """Ctrl-C ends the sessions under way and still sums up; what was cancelled is recorded as cancelled."""
    arguments = ("probe", simulator.url("silent"), "--count", "3", "--concurrency", "3", "--format", "json")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "telemetry",
        *arguments,
        "--endpoint",
        pipeline.otlp_grpc,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        while simulator.played["silent"] < 3:  # noqa: ASYNC110  # another process brings it about
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        told, narrated = await process.communicate()

    assert process.returncode == 130
    assert (json.loads(told)["cancelled"], json.loads(told)["failure_ratio"]) == (3, None)
    assert b"Traceback" not in narrated
    rows = await asked(pipeline, "recent", synthetic=True)
    assert [row["outcome"] for row in rows] == ["cancelled"] * 3


def test_the_summary_counts_what_ended() -> None:
    """The rate is of what ended, cancelled ones stand beside it, and each kind of failure has an example."""
    failed = [Probed(Outcome.FAILED, f"f{n}", "noScene", "SearchingForDigitalPerson", "busy") for n in range(2)]
    other = Probed(Outcome.FAILED, "g", "mediaStreamFailed", "ConnectingToDigitalPerson", "dtls")
    connected = [Probed(Outcome.CONNECTED, "c", connect_s=seconds) for seconds in (1.0, 2.0, 3.0, 4.0, 5.0)]

    summed = probe.summary([*failed, other, *connected, Probed(Outcome.CANCELLED, "x")])

    assert (summed["attempts"], summed["connected"], summed["failed"], summed["cancelled"]) == (9, 5, 3, 1)
    assert summed["failure_ratio"] == 3 / 8
    assert (summed["connect_p50_s"], summed["connect_p95_s"]) == (3.0, pytest.approx(4.8))
    assert [failure["count"] for failure in summed["failures"]] == [2, 1]
    assert summed["failures"][0]["example_attempt_id"] in ("f0", "f1")


def test_the_summary_of_nothing() -> None:
    """Nothing that ended has no rate and no percentiles, instead of zeros."""
    summed = probe.summary([])

    assert (summed["failure_ratio"], summed["connect_p50_s"], summed["failures"]) == (None, None, [])


@pytest.mark.parametrize("given", ["region", "=x"])
def test_an_attribute_has_a_key_and_a_value(given: str) -> None:
    """An attribute without key or equals sign is a usage error; a value may hold anything."""
    assert _pairs(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    with pytest.raises(UsageError, match="KEY=VALUE"):
        _pairs([given])
