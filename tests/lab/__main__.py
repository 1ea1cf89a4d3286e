"""The fault laboratory: `python -m tests.lab [FAULT…]` plays real faults and prints what the verdicts make of them.

It needs root, and Debian's iproute2, nftables and coturn; `make lab` installs them.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.lab.faults import FAULTS
from tests.lab.network import lacks
from tests.lab.play import Result, play_all
from tests.support_room.lab import matrix


def report(results: list[Result]) -> str:
    """What each verdict says, then the matrix."""
    lines = [
        f"{result.fault.name.ljust(42)} {result.judged.verdict.owner.ljust(14)}"
        f"{result.judged.verdict.certainty.ljust(13)} {result.judged.verdict.sentence}"
        for result in results
    ]
    complaints = [f"WRONG {result.fault.name}: {complaint}" for result in results for complaint in result.complaints]
    return "\n".join([*lines, "", matrix(result.judged for result in results), *complaints])


def main(names: list[str]) -> int:
    """Play, judge, print; 1 when a verdict is wrong, 2 when the laboratory cannot run."""
    unknown = [name for name in names if name not in FAULTS]
    reason = f"there is no fault {unknown[0]}; there are {', '.join(FAULTS)}" if unknown else lacks()
    if reason:
        print(f"the fault laboratory did not run: {reason}", file=sys.stderr)
        return 2
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = asyncio.run(play_all([FAULTS[name] for name in names or FAULTS], Path(folder)))
    print(report(results))
    print(f"{time.monotonic() - began_s:.0f} s")
    return int(any(result.complaints or not result.judged.honest for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
