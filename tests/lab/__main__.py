"""The fault laboratory: `make lab`, or `python -m tests.lab [FAULT…]` for some of its network faults.

Plays real faults of a network and the simulator's scenarios, holds the verdicts against what was true, and replays what
was recorded of the scenarios.
It needs root, and Debian's iproute2, nftables and coturn; `make lab` installs them.
When everything was played, what came out goes to `tests/lab/RESULTS.md` too.
"""

import asyncio
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.faults import FAULTS
from tests.lab.network import lacks
from tests.lab.play import Result, play_all
from tests.lab.replay import Replayed, replay
from tests.lab.truth import TRUTHS, Judged, matrix, scenarios

RESULTS = Path(__file__).with_name("RESULTS.md")

_RESULTS = """# The fault laboratory

`make lab` wrote this, with Python {python}.
Each line is a fault that was made, and what its verdict says of it.
Then come owners, true and named, and the precision and recall of each rule.
LEANS marks a verdict that is only likely, names another owner, and has the true one among its rivals.

```
{said}
```
"""


def verdict_line(one: Judged) -> str:
    """What the verdict says of a fault."""
    return (
        f"{one.fault.ljust(42)} {one.verdict.owner.ljust(14)}{one.verdict.certainty.ljust(13)} {one.verdict.sentence}"
    )


def play(names: Sequence[str]) -> list[Result]:
    """Play faults of the network, and say how far it got."""
    ended = 0

    def tell(result: Result) -> None:
        nonlocal ended
        ended += 1
        print(f"{ended:3}/{len(names)} {verdict_line(result.judged)}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(play_all([FAULTS[name] for name in names], Path(folder), tell))


def main(names: list[str]) -> int:
    """Play, judge, print; 1 when a verdict is wrong, 2 when the laboratory cannot run."""
    unknown = [name for name in names if name not in FAULTS]
    reason = f"there is no fault {unknown[0]}; there are {', '.join(FAULTS)}" if unknown else lacks()
    if reason:
        print(f"the fault laboratory did not run: {reason}", file=sys.stderr)
        return 2
    began_s = time.monotonic()
    print("playing the faults of the network", file=sys.stderr)
    results = play(names or list(FAULTS))
    judged = [result.judged for result in results]
    replays: list[Replayed] = []
    if not names:
        print("playing the scenarios of the simulator, and replaying what was recorded of them", file=sys.stderr)
        judged += scenarios()
        replays = replay(TRUTHS)
    complaints = [f"WRONG {result.fault.name}: {complaint}" for result in results for complaint in result.complaints]
    complaints += [f"WRONG replay of {one.judged.fault}: {one.judged.verdict.rule}" for one in replays if not one.same]
    replayed = f"{sum(one.same for one in replays)} of {len(replays)} recorded scenarios replay to the same verdict"
    said = "\n".join([*map(verdict_line, judged), "", matrix(judged), *([replayed] if replays else []), *complaints])
    print(said)
    print(f"{time.monotonic() - began_s:.0f} s", file=sys.stderr)
    if not names:
        RESULTS.write_text(_RESULTS.format(python=platform.python_version(), said=said), "utf-8")
    return int(bool(complaints) or not all(one.honest for one in judged))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
