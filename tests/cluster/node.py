"""One node of ClickHouse, out of the chDB wheel: `python node.py`, in a folder with its `config.xml`.

ClickHouse reads that file, listens for as long as its query runs, and ends with its standard input.
"""

import os
import sys
import threading

from chdb import _chdb


def end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_stdin, daemon=True).start()
_chdb.query(
    "system start listen tcp; system start listen http; select sleepEachRow(3) from numbers(1000000000) "
    "settings function_sleep_max_microseconds_per_block = 0, max_block_size = 1 format Null",
    "TabSeparated",  # what a stock server answers in by default
)
