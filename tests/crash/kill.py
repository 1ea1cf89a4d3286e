"""Kill a process that stores spans, at random moments, and count what was lost or doubled.

    python -m tests.crash.kill [KILLS]

Prints a summary line, and exits with 1 when anything acknowledged was lost or anything was stored twice.
"""

import random
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from telemetry.store import blocks
from telemetry.store.checks import verify
from telemetry.store.duck import Store
from telemetry.store.retention import DAY_NS
from tests.crash.victim import ATTEMPTS, digest
from tests.support import outdated
from tests.support.copies import copied
from tests.support.spans import attempt, foreign, moved, table

OUTDATED = {"promote": outdated.without_column, "version 1": outdated.of_version_1}
MODES = ("load", "tend", "prune", "backup", "migrate", *OUTDATED)
STORE_KILLS = 14
"""That one store survives."""
STORES_AT_ONCE = 2
LONG_AGO_NS = -2000 * DAY_NS
REQUEST = table(*(attempt(n, samples=2) for n in range(1, ATTEMPTS + 1)), foreign(1, spans=3))
STORED, WAITING = (pa.concat_tables([moved(REQUEST, n) for n in numbers]) for numbers in (range(20), range(20, 40)))
"""The spans of a store of an earlier version."""

_adding = threading.Lock()


@dataclass(slots=True)
class Tally:
    """What became of all spans."""

    kills: int = 0
    busy: int = 0
    """Kills while a fold, a checkpoint, a prune, a backup or a migration was under way."""
    requests: int = 0
    lost: int = 0
    """Acknowledged spans that are not there."""
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)
    """Relations that do not equal their definition, and stores in which an attribute is not where it belongs, or that
    do not know what they took."""
    backups: int = 0
    """Whole ones that were left, each opened and compared likewise."""

    def __str__(self) -> str:
        spans = self.requests * REQUEST.num_rows
        return (
            f"{self.kills} kills ({self.busy} of them inside a checkpoint, prune, backup or migration), "
            f"{spans} spans acknowledged: "
            f"{self.lost} lost, {self.doubled} doubled, {len(self.wrong)} relations or stores wrong; "
            f"{self.backups} backups whole"
        )

    def add(self, other: "Tally") -> None:
        """Count another one's, and say how far it is every ten kills. Any thread may call it."""
        with _adding:
            self.kills += other.kills
            self.busy += other.busy
            self.requests += other.requests
            self.lost += other.lost
            self.doubled += other.doubled
            self.wrong += other.wrong
            self.backups += other.backups
            if self.kills % 10 == 0:
                print(self, file=sys.stderr, flush=True)

    @property
    def passed(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


def run(kills: int, *, seed: int = 1, modes: tuple[str, ...] = MODES, longest_s: float = 1.0) -> Tally:
    """Kill `kills` times, on a few stores that each survive many kills, two at a time: most of a kill is waiting."""
    tally = Tally()
    numbers = range(kills)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(STORES_AT_ONCE) as pool:
        stores = [numbers[start : start + STORE_KILLS] for start in range(0, kills, STORE_KILLS)]
        ended = [pool.submit(_kill_often, Path(folder), some, seed, modes, longest_s, tally) for some in stores]
        for one in ended:
            one.result()
    return tally


def _kill_often(
    folder: Path, numbers: range, seed: int, modes: tuple[str, ...], longest_s: float, tally: Tally
) -> None:
    """Kill so many times on one store, and remove it."""
    chance = random.Random(f"{seed} {numbers.start}")
    path = folder / f"{numbers.start}" / "store.duckdb"
    acknowledged: set[int] = set()
    with Store.open(path) as store:
        # For pruning to find something, each time.
        store.commit([moved(REQUEST, 15 * 16**7 + n, by_ns=LONG_AGO_NS) for n in range(50)])
    for number in numbers:
        mode, after_s = modes[number % len(modes)], chance.uniform(0.0, longest_s)
        if mode in OUTDATED:
            found, said = _kill_migrating(path.parent / mode, mode, after_s)
        else:
            said = _kill_one(path, 1 + number * 10_000, mode, after_s)
            acks = {int(line.removeprefix("ack ")) for line in said if line.startswith("ack ")}
            acknowledged |= acks
            found = _examined(path, acknowledged, acks, forgetful=mode == "prune")
            found.requests = len(acks)
        found.kills = 1
        found.busy = [line for line in said if line in ("busy", "idle")][-1:] == ["busy"]
        for backup in path.parent.glob("backup-*.duckdb"):
            _compare(backup, found)
            backup.unlink()
            found.backups += 1
        tally.add(found)
    shutil.rmtree(path.parent)


def _kill_migrating(folder: Path, mode: str, after_s: float) -> tuple[Tally, list[str]]:
    """Kill a victim that brings a store up to date; leave the store as it was then, for the next one.

    Returns:
        What is in a copy of the store, and what the victim said.
    """
    path, copy = folder / "store.duckdb", folder / "examined.duckdb"
    if not folder.exists():
        folder.mkdir()
        OUTDATED[mode](outdated.beside(path), STORED, WAITING)
        shutil.copyfile(outdated.beside(path), path)
    said = _kill_one(path, 0, "outdated", after_s, begun="busy")
    copied(path, copy)
    if blocks.beside(path).exists():
        shutil.copyfile(blocks.beside(path), blocks.beside(copy))
    tally = Tally()
    with Store.open(copy) as store:
        misplaced = outdated.misplaced(store)
        tally.lost = store.commit([STORED, WAITING]).stored
    if misplaced:
        tally.wrong.append(f"{mode}: {misplaced} spans lack what they said, or say it twice")
    _compare(copy, tally)
    copy.unlink()
    return tally, said


def _kill_one(path: Path, first: int, mode: str, after_s: float, *, begun: str = "ack") -> list[str]:
    """Start a victim, kill it that long after it said so, and return what it said."""
    command = [sys.executable, "-m", "tests.crash.victim", str(path), str(first), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        said: list[str] = []
        while not any(line.startswith(begun) for line in said):
            line = victim.stdout.readline()
            if not line:
                raise AssertionError(f"the victim ended by itself: {said}")
            said.append(line.strip())
        deadline = time.monotonic() + after_s
        while (left := deadline - time.monotonic()) > 0:
            if select.select([victim.stdout], [], [], left)[0]:
                said.append(victim.stdout.readline().strip())
        victim.kill()
        # The last line may be torn: only whole ones count as said.
        said += [line.strip() for line in victim.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    return said


def _examined(path: Path, acknowledged: set[int], last: set[int], *, forgetful: bool) -> Tally:
    """Open the store again; send once more what was acknowledged last, as a sender would whose answer got lost.

    Args:
        forgetful: whether the store may know no requests.
    """
    tally = Tally()
    with Store.open(path) as store:
        near = range(min(last, default=0), max(last, default=0) + 100)
        known = {number: store.taken(digest(number)) for number in near}
        missing = [number for number in last if known[number] != REQUEST.num_rows]
        if missing and not forgetful:
            tally.wrong.append(f"{path.name}: requests that were acknowledged are not known: {missing}")
        store.commit([moved(REQUEST, number, by_ns=number * 10**9) for number in sorted(last)[-5:]])
        found = {
            int(row["request"], 16): row["spans"]
            for row in store.query(
                "select trace_id[1:8] as request, count(*) as spans from spans group by 1"
            ).to_pylist()
        }
        taken = acknowledged | {number for number, spans in known.items() if spans}  # not told again, but acknowledged
        tally.lost += sum(max(0, REQUEST.num_rows - found.get(number, 0)) for number in taken)
    _compare(path, tally)
    return tally


def _compare(path: Path, tally: Tally) -> None:
    """Hold what a store has against its spans."""
    with Store.open(path) as store:
        checks = verify(store)
    for check in checks:
        if check.name.startswith("every span"):
            tally.doubled += check.differing
        elif not check.passed:
            tally.wrong.append(f"{path.name}: {check.name}: {check.example}")


if __name__ == "__main__":
    result = run(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    print(result)
    sys.exit(0 if result.passed else 1)
