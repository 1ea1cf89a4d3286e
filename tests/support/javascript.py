"""OpenTelemetry's JavaScript SDK as a real sender: in Node, and bundled for a browser."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parents[1] / "receiver" / "javascript"
READY: Final = shutil.which("node") is not None and (FOLDER / "node_modules").is_dir()
MISSING: Final = "NOT TESTED: the JavaScript SDK as a sender. Install Debian's nodejs and npm, then `make test-senders`"


async def node(**asked: Any) -> dict[str, Any]:
    """Export spans from Node; returns how the SDK saw it."""
    told: dict[str, Any] = json.loads(await _run("node", "node.mjs", json.dumps(asked)))
    return told


async def bundle() -> str:
    """The SDK as one script for a browser."""
    return await _run("node_modules/.bin/esbuild", "browser.mjs", "--bundle", "--platform=browser", "--log-level=error")


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, cwd=FOLDER, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(60):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise AssertionError(f"{command[0]} ended with {process.returncode}")
    return said.decode()
