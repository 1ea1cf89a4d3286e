"""Every door that takes `--store clickhouse://…`: pages, query API, alerts, Python, command line."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from telemetry import reports, source
from telemetry.alerts.judging import Rule
from telemetry.alerts.watch import Plan
from telemetry.cli.app import root
from telemetry.errors import UsageError
from telemetry.serve import Doors, showing
from telemetry.store.duck import Store
from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.real

FAILING = Rule(
    name="any attempt fails",
    report="failure_rate",
    params={"since": "9999d", "bucket": "all"},
    column="failed",
    above=0,
)
LIMIT_S = 60.0


async def test_pages_before_a_cluster_answer_like_those_of_a_file(filled: Cluster, store: Store) -> None:
    """Reports, stories, figures and alerts; and they say that nothing is received here."""
    id = store.query("select max(session_id) as id from connections")["id"][0].as_py()
    async with (
        showing(filled.url(), Doors(pages_port=0, watch=Plan((FAILING,)))) as address,
        httpx.AsyncClient(base_url=address, timeout=LIMIT_S, trust_env=False) as client,
    ):
        health, pulse, told, facts = [
            (await client.get(path)).json()
            for path in ("/api/health", "/api/pulse", f"/api/sessions/{id}", "/api/store")
        ]
        rows = (await client.get("/api/reports/funnel", params={"since": "9999d"})).json()["rows"]
        attempt_id = told["attempt"]["attempt_id"]
        whenever = {"since_ns": 0, "until_ns": 2**62}
        sentences = (await client.get("/api/verdicts", params={"attempt_id": attempt_id, **whenever})).json()
        metrics = (await client.get("/metrics")).text
        missing = await client.get("/api/store/backup")

    assert health["receives"] is False
    assert isinstance(pulse["pulse"], int)
    assert told["attempt"]["session_id"] == id
    assert sentences == {attempt_id: told["verdict"]["sentence"]}
    assert rows[0]["attempts"] == reports.execute("funnel", {"since": "9999d"}, store)["attempts"][0].as_py()
    assert (facts["cluster"], facts["nodes"], facts["shards"]) == ("fleet", 2, 2)
    assert 'dp_telemetry_rule_rows{alertname="any attempt fails",status="firing"}' in metrics
    assert "\ndp_telemetry_store_spans " not in metrics
    assert missing.status_code == 404


async def test_a_closed_page_ends_its_query_on_every_node(cluster: Cluster, slow: str) -> None:
    """Whoever leaves before the answer leaves nothing running."""
    async with (
        showing(slow, Doors(pages_port=0)) as address,
        httpx.AsyncClient(base_url=address, timeout=LIMIT_S, trust_env=False) as client,
    ):
        page = asyncio.create_task(client.get("/api/sessions/0123456789"))
        await asyncio.to_thread(_until, cluster, 2)
        page.cancel()
        await asyncio.to_thread(_until, cluster, 0)


def test_ctrl_c_ends_the_query_on_every_node(cluster: Cluster, slow: str) -> None:
    """The command leaves with its exit code, and nothing runs on."""
    command = [sys.executable, "-m", "telemetry", "session", "0123456789", "--store", slow]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as asking:
        _until(cluster, 2)
        asking.send_signal(signal.SIGINT)
        assert asking.wait(LIMIT_S) == 130
    _until(cluster, 0)


def _until(cluster: Cluster, running: int) -> None:
    """Wait until so many nodes are busy with the slow relation."""
    question = "select count() from system.processes where query like '%id_hash%' and query not like '%processes%'"
    deadline = time.monotonic() + LIMIT_S
    busy = -1
    while busy != running:
        assert time.monotonic() < deadline, f"{busy} nodes are busy"
        busy = 0
        for node in cluster.nodes:
            with node.client() as client:
                busy += bool(client.command(question))


def test_python_and_the_command_line_ask_a_cluster(
    filled: Cluster, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reports.run`, `store info`, `check`, `capsule export` and `repro`; `TELEMETRY_STORE` may be a cluster, too."""
    id = store.query("select max(attempt_id) as id from connections where outcome = 'connected'")["id"][0].as_py()
    frame = reports.run("funnel", store=filled.url(), since="9999d")
    assert frame["attempts"].tolist() == reports.run("funnel", store=store, since="9999d")["attempts"].tolist()

    monkeypatch.setenv("TELEMETRY_STORE", filled.url())
    rules, capsule = tmp_path / "rules.toml", tmp_path / "capsule.html"
    rules.write_text(
        '[[rules]]\nname = "fails"\nreport = "failure_rate"\nparams = { since = "9999d", bucket = "all" }\n'
        'column = "failed"\nabove = 0\n'
    )
    assert json.loads(_run("store", "info", "--format", "json").stdout)["address"] == filled.url()
    assert _run("check", "--rules", str(rules), exit_code=3).stdout.startswith("FIRING")
    _run("capsule", "export", id, "--output", str(capsule))
    assert _run("repro", id).stdout == _run("repro", str(capsule)).stdout


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        ("store prune --keep-days 3", "store init --keep-days"),
        ("store import FILE", "store copy"),
        ("capsule import FILE", "import the capsule into a file"),
        ("serve --keep-days 3", "store init --keep-days"),
        ("serve --origin https://a.example", "Collectors export to the cluster"),
        ("demo --once", "keep what is played in a file"),
    ],
)
def test_what_needs_a_file_says_what_to_do_instead(command: str, instead: str, tmp_path: Path) -> None:
    """Nothing is asked of the cluster, and the password is not repeated."""
    (tmp_path / "FILE").touch()
    words = [str(tmp_path / word) if word == "FILE" else word for word in command.split()]
    told = _run(*words, "--store", "clickhouse://me:secret@127.0.0.1:9/telemetry", exit_code=2)

    assert instead in told.stderr
    assert "secret" not in told.stderr


def test_what_a_cluster_cannot_do_says_what_can(filled: Cluster, tmp_path: Path) -> None:
    """Verification and backups are a file's; `telemetry store copy` makes one."""
    with source.opened(filled.url()) as asked:
        for refused in (asked.verify, lambda: asked.backup(tmp_path / "copy")):
            with pytest.raises(UsageError, match="telemetry store copy"):
                refused()


def _run(*arguments: str, exit_code: int = 0):
    told = CliRunner().invoke(root, arguments)
    assert told.exit_code == exit_code, told.output
    return told
