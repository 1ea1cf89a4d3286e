"""Copies of a store's files."""

import shutil
from pathlib import Path

from telemetry.store import opening


def copied(path: Path, to: Path) -> Path:
    """Copy the file and its logs, as a kill would leave them; not the blocks that a checkpoint may write over."""
    for source, target in zip((path, *opening.logs(path)), (to, *opening.logs(to)), strict=True):
        if source.exists():
            shutil.copyfile(source, target)
    return to
