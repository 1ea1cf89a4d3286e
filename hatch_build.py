"""Compile what is C of the receiver where there is a compiler; without one, decoding is slower."""

import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = ("telemetry/receiver/scan.c", "telemetry/receiver/transcode.c")
COMPILED = "telemetry/receiver/_scan.so"


class ScannerHook(BuildHookInterface):
    """Makes `COMPILED`, in wheels and in editable installations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        sources = [str(Path(self.root, source)) for source in SOURCES]
        compiled = Path(self.root, COMPILED)
        compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
        command = [compiler, "-std=c11", "-O2", "-fPIC", "-shared", "-o", str(compiled), *sources]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            compiled.unlink(missing_ok=True)
            reason = getattr(error, "stderr", "") or error
            print(
                f"the receiver decodes without its compiled scanner, ten to twenty times slower: {reason}",
                file=sys.stderr,
            )
            return
        build_data["artifacts"].append(COMPILED)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
