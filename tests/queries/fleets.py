"""Fleets of thousands with their truth, and the reports over them: made once for all tests of a file."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd
import pyarrow as pa

from telemetry import reports
from telemetry.simulator import fleet
from telemetry.simulator.fleet import START_NS
from tests.support.source import MemorySource

ATTEMPTS = 12_000
DAYS = 7.0
END_NS = START_NS + 8 * fleet.DAY_NS
EFFECTS = {
    "none": (),
    "release": (fleet.bad_release(),),
    "hour": (fleet.saturated_hour(),),
    "client": (fleet.heavy_client(),),
}


@cache
def planted(name: str) -> tuple[MemorySource, pd.DataFrame]:
    """A fleet with an effect, and the truth of it."""
    given: dict[str, Any] = {"attempts": ATTEMPTS, "days": DAYS, "seed": 3, "effects": EFFECTS[name]}
    given["batch_attempts"] = 4000
    source = MemorySource(*fleet.generate(**given, sample_every_s=600 if name == "none" else 0)).keep()
    truth = pa.concat_tables(fleet.truth(**given)).to_pandas()
    return source, truth[~truth["synthetic"]]


def answer(name: str, source: MemorySource, **params: object) -> pd.DataFrame:
    """A report over the whole fleet."""
    given: Mapping[str, object] = {"since": START_NS, "until": END_NS} | params
    known = {param.name for param in reports.find(name).params}
    if "now" in known:
        given = {"now": END_NS, **given}
    return reports.to_pandas(reports.execute(name, given, source, now_ns=END_NS))
