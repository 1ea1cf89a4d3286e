"""The commands that look after what was recorded: store, capsule, repro."""

import asyncio
import json
import shutil
import socket
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from telemetry.cli.app import root
from telemetry.cli.keeping import retention
from telemetry.errors import UsageError
from telemetry.serve import Doors, serving
from telemetry.store.duck import Store
from telemetry.store.retention import Retention
from tests.support.spans import attempt, table


def run(*arguments: str | Path) -> Result:
    """One command; a failure that is no expected error fails the test."""
    result = CliRunner().invoke(root, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store's file with one attempt that connected and one that failed."""
    path = tmp_path / "store.duckdb"
    with Store.open(path) as store:
        store.commit([table(attempt(1), attempt(2, outcome="failed", error="noScene", detail="queue_full"))])
    return path


def test_info_says_what_is_there(path: Path) -> None:
    """`store info` has the same facts as text and as JSON."""
    facts = json.loads(run("store", "info", "--store", path, "--format", "json").stdout)
    text = run("store", "info", "--store", path).stdout

    assert facts["connections"] == 2
    assert f"spans            {facts['spans']}\n" in text
    assert "first            2026-09-21 14:13:20 UTC\n" in text


def test_verify_compares(path: Path) -> None:
    """`store verify` is silent about nothing: one line for each comparison, and 0 when all hold."""
    result = run("store", "verify", "--store", path)

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) >= 2
    assert all(line.startswith("ok ") for line in result.stdout.splitlines())


def test_backup_is_a_whole_store(path: Path, tmp_path: Path) -> None:
    """`store backup` makes a file that answers like the store, and never writes over another."""
    target = tmp_path / "backup.duckdb"

    assert run("store", "backup", target, "--store", path).exit_code == 0
    assert run("store", "backup", target, "--store", path).exit_code == 2
    with Store.open(target, read_only=True) as copy:
        assert copy.info()["connections"] == 2


def test_backup_makes_no_store(tmp_path: Path) -> None:
    """`store backup` of a path that is mistyped says so, and leaves nothing there."""
    result = run("store", "backup", tmp_path / "backup.duckdb", "--store", tmp_path / "typo.duckdb")

    assert (result.exit_code, result.stderr.count("\n")) == (5, 1)
    assert "there is no store at" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbeginning"])
@pytest.mark.parametrize("command", ["backup", "export"])
def test_backup_of_a_server_that_is_killed(tmp_path: Path, answer: bytes, command: str) -> None:
    """A server that is gone before the end of its copy is one clear error, and leaves nothing."""

    def break_off(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=break_off, args=[listener])
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        result = run("store", command, tmp_path / "out.jsonl", "--store", url)
        server.join()

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (6, "", 1)
    assert f"telemetry: {url} does not answer: " in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
async def test_a_server_without_room_for_a_copy(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that lacks the room to copy its store says so before it begins, and a copy leaves nothing there."""
    used = shutil.disk_usage(tmp_path)
    async with serving(path, Doors(grpc_port=0, http_port=0, pages_port=0)):
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda folder: used._replace(free=path.stat().st_size))
            refused = await asyncio.to_thread(run, "store", "backup", tmp_path / "backup.duckdb", "--store", path)
        left = {path.name for path in tmp_path.iterdir()}  # noqa: ASYNC240  # nothing is written meanwhile
        taken = await asyncio.to_thread(run, "store", "backup", tmp_path / "backup.duckdb", "--store", path)

    assert refused.exit_code == 6
    assert "is made beside it first, which takes" in refused.stderr
    assert "make room, or stop the server and back up the file to another disk" in refused.stderr
    assert not any("backup" in name for name in left)
    assert taken.exit_code == 0


def test_prune_forgets_what_it_was_told(path: Path) -> None:
    """`store prune` forgets what is older than the days given, and refuses to guess."""
    assert run("store", "prune", "--store", path).exit_code == 2
    assert run("store", "prune", "--store", path, "--keep-days", "100000").stdout.startswith("forgot 0 attempts")
    assert run("store", "prune", "--store", path, "--keep-days", "0.001").stdout.startswith("forgot 2 attempts")


def test_prune_makes_no_store(tmp_path: Path) -> None:
    """`store prune` of a path that is mistyped says so, and leaves nothing there."""
    result = run("store", "prune", "--store", tmp_path / "typo.duckdb", "--keep-days", "1")

    assert result.exit_code == 5
    assert "there is no store at" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["store", "prune", "--keep-days", "1"],
        ["store", "import", "spans.jsonl"],
        ["capsule", "import", "spans.jsonl"],
        ["serve"],
    ],
)
@pytest.mark.parametrize("named", ["option", "variable"])
def test_a_servers_address_is_no_file(
    command: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs a store's file refuses the address of a server, and makes no file named after it."""
    monkeypatch.chdir(tmp_path)
    Path("spans.jsonl").touch()
    if named == "option":
        command = [*command, "--store", "http://user:secret@127.0.0.1:4380"]
    else:
        monkeypatch.setenv("TELEMETRY_STORE", "http://user:secret@127.0.0.1:4380")

    result = run(*command)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "http://127.0.0.1:4380 is the address of a server and no file; name the file" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["spans.jsonl"]


def test_retention_options() -> None:
    """Days, days of an environment and sizes are read; nothing given keeps everything; nonsense is refused."""
    assert retention(None, (), None) is None
    assert retention(30, ("staging=3", "a=b=1.5"), "20G") == Retention(30, 20 * 10**9, {"staging": 3.0, "a=b": 1.5})
    assert retention(None, (), "1.5kB") == Retention(max_bytes=1500)
    for days, environments, size in ((0, (), None), (1, ("staging",), None), (1, ("x=-1",), None), (None, (), "big")):
        with pytest.raises(UsageError):
            retention(days, environments, size)


def test_a_capsule_travels(path: Path, tmp_path: Path) -> None:
    """A capsule that is exported imports into another store, to the same verdict; what is no capsule is refused."""
    file, elsewhere = tmp_path / "case.html", tmp_path / "elsewhere.duckdb"

    exported = run("capsule", "export", "attempt-0002", "--store", path, "--output", file)
    imported = run("capsule", "import", file, "--store", elsewhere)
    told = run("session", "attempt-0002", "--store", elsewhere, "--format", "ticket")
    (tmp_path / "junk.html").write_text("<html>")
    refused = run("capsule", "import", tmp_path / "junk.html", "--store", elsewhere)

    assert exported.stdout == f"{file}\n"
    assert (imported.exit_code, imported.stdout) == (0, "attempt-0002\n")
    assert "the verdict is the same" in imported.stderr
    assert "attempt-0002" in told.stdout
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "no capsule" in refused.stderr


@pytest.mark.parametrize("format", ["otlp", "chrome", "jaeger"])
def test_a_trace_is_exported_for_other_viewers(path: Path, tmp_path: Path, format: str) -> None:
    """`capsule export --format` writes the attempt as Perfetto, Jaeger or an OTLP reader takes it."""
    file = tmp_path / "trace.json"

    exported = run("capsule", "export", "attempt-0002", "--store", path, "--format", format, "--output", file)

    assert exported.stdout == f"{file}\n"
    body = json.loads(file.read_text("utf-8"))
    spans = {
        "otlp": lambda: [span for r in body["resourceSpans"] for s in r["scopeSpans"] for span in s["spans"]],
        "chrome": lambda: [event for event in body["traceEvents"] if event["ph"] in ("X", "i")],
        "jaeger": lambda: [span for trace in body["data"] for span in trace["spans"]],
    }[format]()
    told = json.loads(run("session", "attempt-0002", "--store", path, "--format", "json").stdout)
    assert len(spans) == told["attempt"]["span_count"]


@pytest.mark.parametrize("name", ["spans", "spans.jsonl", "spans.jsonl.gz"])
def test_spans_travel(path: Path, tmp_path: Path, name: str) -> None:
    """What `store export` wrote is imported into another store once, however often it is tried."""
    elsewhere = tmp_path / "elsewhere.duckdb"

    exported = run("store", "export", tmp_path / name, "--store", path)
    count = exported.stdout.split()[0]
    first = run("store", "import", tmp_path / name, "--store", elsewhere)
    again = run("store", "import", tmp_path / name, "--store", elsewhere)

    assert int(count) > 20
    assert first.stdout.startswith(f"{count} spans from 1 file; 0 were")
    assert again.stdout.startswith(f"0 spans from 1 file; {count} were")
    with Store.open(elsewhere, read_only=True) as store:
        assert store.info()["connections"] == 2


def test_what_import_leaves_out_is_said(tmp_path: Path) -> None:
    """`store import` takes the spans that keep the rules, says on stderr why others do not, and ends with 1."""
    ids = {"spanId": "1" * 16, "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    spans = [{"name": "good", "traceId": "2" * 32, **ids}, {"name": "bad\x1b", "traceId": "", **ids}]
    line = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
    (tmp_path / "spans.jsonl").write_text(f"\n{line}\n")

    result = run("store", "import", tmp_path / "spans.jsonl", "--store", tmp_path / "s.duckdb")

    assert (result.exit_code, result.stdout) == (1, "1 span from 1 file; 0 were there already\n")
    assert result.stderr == (
        "1 span was left out: trace_id is not 16 bytes, or all zeros; for example spans.jsonl, line 2: "
        f"name='bad\\x1b', traceId='', spanId='{'1' * 16}'\n"
    )


@pytest.mark.real
@pytest.mark.parametrize("served", [False, True])
async def test_a_capsule_is_taken_whole_or_not(path: Path, tmp_path: Path, served: bool) -> None:
    """`capsule import` of spans of which one breaks a rule stores none, and says why; a server does not change that."""
    dump = tmp_path / "dump.txt"
    entries = [
        {"time": "2026-09-21T14:13:20.100Z", "type": "a", "value": ""},
        {"time": 8e12, "type": "late", "value": ""},
    ]
    dump.write_text(json.dumps({"getUserMedia": [], "PeerConnections": {"1-1": {"updateLog": entries, "stats": {}}}}))
    command = ["capsule", "import", dump, "--attempt", "attempt-0002", "--store", path]

    async with AsyncExitStack() as stack:
        if served:
            await stack.enter_async_context(serving(path, Doors(grpc_port=0, http_port=0, pages_port=0)))
        result = await asyncio.to_thread(run, *command)

    assert (result.exit_code, result.stdout) == (1, "")
    assert "1 span cannot be stored: a time lies past the year 2199" in result.stderr
    assert "for example name='webrtc-internals.late'" in result.stderr
    with Store.open(path) as store:
        assert store.query("select name from spans where starts_with(name, 'webrtc-internals.')").num_rows == 0


@pytest.mark.parametrize("name", ["spans", "spans.jsonl", "case.html"])
def test_no_export_writes_over_another(path: Path, tmp_path: Path, name: str) -> None:
    """A target that holds an export already is refused as `store backup` does, and stays as it is."""
    target = tmp_path / name
    export = ["store", "export", target, "--store", path]
    if name == "case.html":
        export = ["capsule", "export", "attempt-0002", "--output", target, "--store", path]
    files = ["", "day=2026-09-21/spans.parquet"]

    assert run(*export).exit_code == 0
    before = [(target / file).stat().st_ino for file in files if (target / file).is_file()]
    again = run(*export)

    assert (again.exit_code, again.stdout) == (2, "")
    assert f"{target} exists; choose another path, or remove it" in again.stderr
    assert [(target / file).stat().st_ino for file in files if (target / file).is_file()] == before != []


def test_where_an_export_may_go(path: Path, tmp_path: Path) -> None:
    """An empty folder and a name with a date take an export; an ending that means nothing is refused."""
    (tmp_path / "empty").mkdir()

    assert run("store", "export", tmp_path / "empty", "--store", path).exit_code == 0
    assert run("store", "export", tmp_path / "spans-2026.09.21", "--store", path).exit_code == 0
    refused = run("store", "export", tmp_path / "spans.txt", "--store", path)

    assert refused.exit_code == 2
    assert "names no form; give a folder, or a .jsonl or .jsonl.gz file" in refused.stderr
    assert not (tmp_path / "spans.txt").exists()


def test_a_browsers_dump_is_laid_on_a_timeline(path: Path, tmp_path: Path) -> None:
    """`capsule import --attempt` puts a browser dump on the attempt's timeline and leaves the verdict alone."""
    dump = tmp_path / "dump.txt"
    entry = {"time": "2026-09-21T14:13:20.100Z", "type": "iceconnectionstatechange", "value": "checking"}
    dump.write_text(json.dumps({"getUserMedia": [], "PeerConnections": {"1-1": {"updateLog": [entry], "stats": {}}}}))
    before = json.loads(run("session", "attempt-0002", "--store", path, "--format", "json").stdout)

    imported = run("capsule", "import", dump, "--attempt", "attempt-0002", "--store", path)
    after = json.loads(run("session", "attempt-0002", "--store", path, "--format", "json").stdout)

    assert (imported.exit_code, imported.stdout) == (0, "attempt-0002\n")
    assert len(after["timeline"]) > len(before["timeline"])
    assert after["verdict"] == before["verdict"]


def test_repro_prints_a_scenario(path: Path, tmp_path: Path) -> None:
    """`repro` prints the same Python from the store and from a capsule, and it is a scenario."""
    file = tmp_path / "case.html"
    run("capsule", "export", "attempt-0002", "--store", path, "--output", file)

    from_store = run("repro", "attempt-0002", "--store", path)
    from_capsule = run("repro", file)

    assert from_store.exit_code == 0
    assert from_store.stdout == from_capsule.stdout
    compile(from_store.stdout, "scenario", "exec")
    assert "queue_full" in from_store.stdout


@pytest.mark.parametrize("given", ["nosuch.html", "cases/nosuch"])
def test_a_mistyped_file_is_no_id(path: Path, given: str) -> None:
    """`repro` of what is named like a file, and is none, looks for no attempt of that id."""
    result = run("repro", given, "--store", path)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"telemetry: there is no file {given}\n"


@pytest.mark.real
async def test_a_running_server_is_asked(path: Path, tmp_path: Path) -> None:
    """While a server holds the store, info, verify, backup and capsules go through it; pruning is left to it."""
    target, file = tmp_path / "backup.duckdb", tmp_path / "case.html"
    killed = tmp_path / ".store.duckdb.backup-x"  # while it made a backup
    killed.mkdir()
    (killed / "store.duckdb.partial").touch()

    async with serving(path, Doors(grpc_port=0, http_port=0, pages_port=0)):
        info = await asyncio.to_thread(run, "store", "info", "--store", path, "--format", "json")
        verified = await asyncio.to_thread(run, "store", "verify", "--store", path)
        copied = await asyncio.to_thread(run, "store", "backup", target, "--store", path)
        exported = await asyncio.to_thread(run, "capsule", "export", "attempt-0002", "--store", path, "--output", file)
        imported = await asyncio.to_thread(run, "capsule", "import", file, "--store", path)
        moved = await asyncio.to_thread(run, "store", "export", tmp_path / "spans.jsonl", "--store", path)
        pruned = await asyncio.to_thread(run, "store", "prune", "--keep-days", "1", "--store", path)

    assert json.loads(info.stdout)["connections"] == 2
    assert verified.exit_code == 0
    assert (copied.exit_code, exported.exit_code) == (0, 0)
    assert imported.stdout == "attempt-0002\n"
    assert int(moved.stdout.split()[0]) > 20
    assert pruned.exit_code == 5
    with Store.open(target, read_only=True) as copy:
        assert copy.info()["connections"] == 2
    left = {path.name for path in tmp_path.iterdir()}  # noqa: ASYNC240  # nothing else runs any more
    assert left <= {"store.duckdb", "backup.duckdb", "case.html", "spans.jsonl"}
