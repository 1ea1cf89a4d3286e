"""Store spans under load until killed, saying after each acknowledgement what was acknowledged.

    python -m tests.crash.victim STORE FIRST MODE

Prints a line `ack NUMBER` for each acknowledged attempt, from FIRST on; `busy` when what MODE names begins, `idle` when
it ends. MODE is `load`, or one of `tend`, `prune`, `backup`, which is then done again and again beside the load, or
`migrate`: the store is opened again and again, each time with other definitions, and takes a request in between. With
`outdated` it is opened, and replaced by a copy of the earlier version's file beside it, again and again.
"""

import asyncio
import itertools
import shutil
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa

from telemetry.store import backup, duck, relations, retention, writer
from tests.support import outdated
from tests.support.spans import T0, attempt, foreign, moved, table

SENDERS = 6
ATTEMPTS = 8
"""In a request."""


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(path: Path, first: int, mode: str) -> None:
    duck.FOLD_ROWS = 2_000  # so that folds and checkpoints are always near
    duck.CHECKPOINT_WAL_BYTES = 2_000_000
    writer.TEND_EVERY_S = 0.01
    some = table(*(attempt(n, samples=2) for n in range(1, ATTEMPTS + 1)), foreign(1, spans=3))
    if mode == "migrate":
        migrate(path, first, some)
    if mode == "outdated":
        migrate_outdated(path)
    store = duck.Store.open(path)
    door = writer.Writer(store)
    numbers = itertools.count(first)
    say("open")
    if mode != "load":
        threading.Thread(target=again_and_again, args=(store, mode), daemon=True).start()

    async def sender() -> None:
        while True:
            number = next(numbers)
            await door.submit(moved(some, number, by_ns=number * 10**9), "grpc", digest(number))
            say(f"ack {number}")

    await asyncio.gather(*(sender() for _ in range(SENDERS)))


def digest(number: int) -> str:
    """Of a request."""
    return f"{number:032x}"


def migrate(path: Path, first: int, some: pa.Table) -> None:
    """Never returns."""
    read = relations.definition
    for number in itertools.count(first):
        changed, comment = ("spans", "samples")[number % 2], f"\n-- {number}"  # all kept rows, or only a view
        relations.definition = lambda name, changed=changed, comment=comment: read(name) + comment * (name == changed)
        say("busy")
        with duck.Store.open(path) as store:
            say("idle")
            store.commit_each([duck.Request(moved(some, number, by_ns=number * 10**9), "grpc", digest(number))])
            say(f"ack {number}")


def migrate_outdated(path: Path) -> None:
    """Never returns. First opens what an earlier victim may have left half done."""
    copy = path.with_name("copy.duckdb")
    while True:
        say("busy")
        with duck.Store.open(path):
            say("idle")
        shutil.copyfile(outdated.beside(path), copy)
        copy.replace(path)


def again_and_again(store: duck.Store, mode: str) -> None:
    """Tend, prune or back up; the last backup stays."""
    last: Path | None = None
    while True:
        say("busy")
        if mode == "tend":
            store.tend(now=True)
        elif mode == "prune":
            # Old enough for the attempts that the test stored long ago, and for none that are being sent.
            retention.prune(store, retention.Retention(days=1000), now_ns=T0 + 500 * retention.DAY_NS)
            store.compact()
        elif mode == "backup":
            target = store.path.with_name(f"backup-{time.monotonic_ns()}.duckdb")
            backup.backup(store, target)
            if last:
                last.unlink()
            last = target
        say("idle")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
