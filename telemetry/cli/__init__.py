"""The command line: one door for people and scripts.

stdout is data, stderr is narration, and each exit code of `errors.ExitCode` means one thing.
Nothing heavy is imported before a command runs, so that `telemetry --help` is instant.
"""

from telemetry.cli.app import main

__all__ = ["main"]
