"""Synthetic fleets: what thousands of clients met over days, with effects planted on purpose.

`generate` gives the spans that the connector would have sent, as Arrow tables with the receiver's columns.
`truth` gives what lies behind them, one row per attempt: same arguments, same fleet.
Failures strike every cohort alike except where an `Effect` says otherwise, so whatever a report finds was planted.
Everything is drawn column by column from one seed. No I/O, no clock.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from telemetry.semconv import ConnectionError, Detail, Part, State, http_detail

S: Final = 1_000_000_000
"""Nanoseconds."""
DAY_NS: Final = 86_400 * S
START_NS: Final = 1_789_948_800 * S
"""2026-09-21 00:00 UTC, a Monday: when a fleet begins unless told otherwise."""
BATCH_ATTEMPTS: Final = 20_000
"""About 300 k spans a table: large enough to be fast, small enough to hold a few."""

REGIONS: Final = ("eu-west-1", "us-east-1", "ap-southeast-2")
_REGION_SHARES: Final = (0.45, 0.4, 0.15)
NETWORKS: Final = ("wifi", "wired", "cell", "unknown")
_NETWORK_SHARES: Final = (0.55, 0.2, 0.2, 0.05)
RUNTIMES: Final = ("cpython", "pypy")
_RUNTIME_SHARES: Final = (0.9, 0.1)
ENVIRONMENTS: Final = ("production", "staging")
_ENVIRONMENT_SHARES: Final = (0.95, 0.05)
VERSIONS: Final = ("1.4.0", "1.5.0", "1.6.0")
_RELEASES: Final = ((0.1, 0.3), (0.5, 0.7))
"""When the second and the third version roll out, as shares of the fleet's days: from none to nearly all clients."""
MEDIA: Final = ("none", "microphone", "camera", "microphone_and_camera")
_MEDIA_SHARES: Final = (0.35, 0.5, 0.03, 0.12)

STEP_LIMITS_NS: Final = {State.SEARCHING: 45 * S, State.DOWNLOADING: 30 * S, State.CONNECTING: 20 * S}
"""The deadlines of the steps, as the connector has them by default."""
CONNECT_LIMIT_NS: Final = 60 * S
_MEDIA_LIMIT_S: Final = 10.0
"""The connector's deadline for ICE, and again for the first frame."""

SEGMENTS: Final = (
    (State.SEARCHING, None),
    (State.SEARCHING, Part.USER_MEDIA),
    (State.SEARCHING, Part.WEBSOCKET_OPEN),
    (State.SEARCHING, Part.QUEUE),
    (State.DOWNLOADING, None),
    (State.DOWNLOADING, Part.ASSETS),
    (State.CONNECTING, None),
    (State.CONNECTING, Part.NEGOTIATE),
    (State.CONNECTING, Part.ICE),
    (State.CONNECTING, Part.DTLS),
    (State.CONNECTING, Part.FIRST_FRAME),
)
"""What an attempt spends its time on, in order; None is what no part covers."""
ROW: Final = {part: row for row, (_, part) in enumerate(SEGMENTS) if part}
STEP_ROWS: Final = {
    state: (
        min(r for r, (s, _) in enumerate(SEGMENTS) if s is state),
        max(r for r, (s, _) in enumerate(SEGMENTS) if s is state),
    )
    for state in STEP_LIMITS_NS
}
_MEDIAN_MS: Final = (3, 350, 90, 120, 1, 900, 2, 130, 160, 80, 220)
_SIGMA: Final = (0.4, 0.9, 0.5, 0.6, 0.3, 0.7, 0.3, 0.3, 0.6, 0.4, 0.4)
"""Log-normal durations of the segments: medians, and sigmas of their logarithms."""
_QUEUED_SHARE: Final = 0.05
_QUEUE_MEDIAN_S: Final = 6.0
_QUEUE_SIGMA: Final = 0.8
_RELAY_SHARE: Final = 0.12
_SYNTHETIC_SHARE: Final = 0.03
_CANCEL_SHARE: Final = 0.015
_PATIENCE_S: Final = 45.0
"""Mean time until a caller who waits in a queue gives up."""
_UNFINISHED_SHARE: Final = 0.004
_RETRY_SHARE: Final = 0.75
_MOST_ATTEMPTS: Final = 4
_BACKOFF_S: Final = 1.5
_LIFE_MEDIAN_S: Final = 200.0
_LIFE_SIGMA: Final = 1.1
_GROWTH: Final = 1.06
"""Attempts for each first attempt, retries and reconnects included; it only spreads the batches over the days."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One way to fail, and how often it happens to an attempt that nothing else befalls."""

    error: ConnectionError
    part: Part
    detail: str
    rate: float
    retryable: bool
    message: str
    close_code: int | None = None
    after_s: float | None = None
    """Seconds into the part. None means somewhere in its usual duration."""

    @property
    def key(self) -> str:
        """`webrtc.ice:ice_no_pair`."""
        return f"{self.part}:{self.detail}"


_E = ConnectionError
_FAILED = _E.SERVER_CONNECTION_FAILED
_STEP_DEADLINE: Final = {
    State.SEARCHING: Failure(_E.SESSION_TIMEOUT, Part.QUEUE, Detail.STEP_DEADLINE, 0, True, "no answer in time"),
    State.DOWNLOADING: Failure(_E.SESSION_TIMEOUT, Part.ASSETS, Detail.STEP_DEADLINE, 0, True, "no assets in time"),
    State.CONNECTING: Failure(_E.SESSION_TIMEOUT, Part.NEGOTIATE, Detail.STEP_DEADLINE, 0, True, "no media in time"),
}
_CONNECT_DEADLINE: Final = Failure(
    _E.SESSION_TIMEOUT, Part.NEGOTIATE, Detail.CONNECT_DEADLINE, 0, True, "no session in time"
)
"""Deadlines strike in any part; the one named here does not count."""
FAILURES: Final = (
    *_STEP_DEADLINE.values(),
    _CONNECT_DEADLINE,
    Failure(_E.NO_USER_MEDIA, Part.USER_MEDIA, Detail.PERMISSION_DENIED, 0.008, False, "the user declined"),
    Failure(_E.NO_USER_MEDIA, Part.USER_MEDIA, Detail.DEVICE_NOT_FOUND, 0.003, False, "there is no such device"),
    Failure(_E.NOT_SUPPORTED, Part.USER_MEDIA, Detail.CODEC_MISSING, 0.001, False, "a codec is missing"),
    Failure(_FAILED, Part.WEBSOCKET_OPEN, Detail.DNS, 0.0015, True, "the server's name is unknown"),
    Failure(_FAILED, Part.WEBSOCKET_OPEN, Detail.TCP_REFUSED, 0.002, True, "the server refused the connection"),
    Failure(_FAILED, Part.WEBSOCKET_OPEN, Detail.TCP_TIMEOUT, 0.001, True, "the server did not answer", after_s=10),
    Failure(_FAILED, Part.WEBSOCKET_OPEN, Detail.TLS, 0.0005, False, "the server's certificate is not valid"),
    Failure(_FAILED, Part.WEBSOCKET_OPEN, http_detail(401), 0.001, False, "the server refused the token"),
    Failure(_FAILED, Part.WEBSOCKET_OPEN, http_detail(503), 0.002, True, "the server answered 503"),
    Failure(_FAILED, Part.QUEUE, Detail.SOCKET_LOST, 0.0015, True, "the connection was lost", 1006),
    Failure(_FAILED, Part.QUEUE, Detail.SERVER_ERROR, 0.002, True, "the server failed", 1011),
    Failure(_E.NO_SCENE, Part.QUEUE, Detail.BUSY, 0.004, True, "every digital person is busy", 4503),
    Failure(_E.NO_SCENE, Part.QUEUE, Detail.QUEUE_FULL, 0.002, True, "the queue is full", 4429),
    Failure(_E.NO_SCENE, Part.QUEUE, Detail.QUEUE_TIMEOUT, 0.002, True, "waited too long", 4408, after_s=40),
    Failure(_FAILED, Part.ASSETS, Detail.SOCKET_LOST, 0.0015, True, "the connection was lost", 1006),
    Failure(_FAILED, Part.ASSETS, Detail.ASSET_FAILED, 0.0015, True, "an asset could not be loaded", 4504),
    Failure(_FAILED, Part.NEGOTIATE, Detail.SOCKET_LOST, 0.001, True, "the connection was lost", 1006),
    Failure(_E.SESSION_TIMEOUT, Part.NEGOTIATE, Detail.SERVER_TIMEOUT, 0.001, True, "the server's time limit", 4001),
    Failure(_E.MEDIA_STREAM_FAILED, Part.NEGOTIATE, Detail.SDP_REFUSED, 0.0005, False, "offer refused", 4415),
    Failure(
        _E.MEDIA_STREAM_FAILED, Part.ICE, Detail.ICE_NO_PAIR, 0.006, True, "no way for media", after_s=_MEDIA_LIMIT_S
    ),
    Failure(_E.MEDIA_STREAM_FAILED, Part.DTLS, Detail.DTLS, 0.001, True, "no encryption was agreed"),
    Failure(
        _E.MEDIA_STREAM_FAILED, Part.FIRST_FRAME, Detail.NO_FIRST_FRAME, 0.002, True, "no video", after_s=_MEDIA_LIMIT_S
    ),
)
_FAILURE: Final = {failure.key: number for number, failure in enumerate(FAILURES)}
_FAILURE_ROW: Final = np.array([ROW[failure.part] for failure in FAILURES])
_QUEUED_KEYS: Final = [number for key, number in _FAILURE.items() if key.startswith("queue:queue_")]


@dataclass(frozen=True, slots=True)
class Ending:
    """One way for a session to end that had been connected."""

    reason: str
    ended_by: str
    detail: str | None
    close_code: int | None
    share: float


ENDINGS: Final = (
    Ending("normal", "client", None, None, 0.76),
    Ending("normal", "server", None, 1000, 0.08),
    Ending("sessionTimeout", "server", None, 4001, 0.09),
    Ending("connectionLost", "network", Detail.SOCKET_LOST, 1006, 0.03),
    Ending("connectionLost", "network", Detail.MEDIA_SILENT, None, 0.03),
    Ending("connectionLost", "server", Detail.SERVER_ERROR, 1012, 0.01),
)
_LOST: Final = [number for number, ending in enumerate(ENDINGS) if ending.reason == "connectionLost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Something planted: which attempts it strikes, and what it does to them."""

    name: str
    from_day: float = 0.0
    until_day: float = math.inf
    """Days since the fleet's start."""
    region: str | None = None
    client_version: str | None = None
    network_type: str | None = None
    client: int | None = None
    """None in any of these four means every one."""
    share: float = 0.0
    """The share of all attempts in the time window that `client` makes."""
    surge: float = 1.0
    """How many times as many attempts as usual begin in the time window."""
    queued: float = 0.0
    """The share of the struck attempts that must queue."""
    wait_s: float = _QUEUE_MEDIAN_S
    """Their median wait in seconds."""
    failures: Mapping[str, float] = field(default_factory=dict)
    """`Failure.key` to the share of the struck attempts that fail so."""
    slower: Mapping[Part, float] = field(default_factory=dict)
    """Part to the factor by which it takes longer."""


def bad_release(version: str = VERSIONS[-1], region: str = REGIONS[0], rate: float = 0.25) -> Effect:
    """A client version that finds no way for its media in one region."""
    return Effect(name="bad_release", client_version=version, region=region, failures={"webrtc.ice:ice_no_pair": rate})


def saturated_hour(day: float = 2.5, hours: float = 1.0) -> Effect:
    """More people than digital persons: long queues, and many who give up or are sent away."""
    return Effect(
        name="saturated_hour",
        from_day=day,
        until_day=day + hours / 24,
        surge=3.0,
        queued=0.8,
        wait_s=25.0,
        failures={"queue:queue_timeout": 0.25, "queue:queue_full": 0.1},
    )


def heavy_client(client: int = 7, share: float = 0.1, rate: float = 0.5) -> Effect:
    """One installation that tries all the time and mostly fails."""
    return Effect(name="heavy_client", client=client, share=share, failures={"webrtc.dtls:dtls": rate})


Facts = dict[str, NDArray[Any]]
"""What is known of many attempts: one array per fact, one element (of the last axis) per attempt."""


def generate(
    attempts: int,
    days: float = 7.0,
    seed: int = 0,
    effects: Sequence[Effect] = (),
    *,
    start_ns: int = START_NS,
    sample_every_s: float = 60.0,
    most_samples: int = 20,
    batch_attempts: int = BATCH_ATTEMPTS,
) -> Iterator[pa.Table]:
    """The spans of a fleet, in tables of whole attempts that follow one another in time.

    Args:
        attempts: how many in all, retries and reconnects included.
        days: the period in which first attempts begin; sessions may end after it.
        sample_every_s: seconds between two heartbeats of a session. 0 means no heartbeats.
        most_samples: the most heartbeats of one session.
    """
    from telemetry.simulator.fleet_spans import spans_of

    for number, facts in enumerate(_batches(attempts, days, seed, effects, start_ns, batch_attempts)):
        yield spans_of(facts, np.random.default_rng([seed, number, 1]), round(sample_every_s * S), most_samples)


def truth(
    attempts: int,
    days: float = 7.0,
    seed: int = 0,
    effects: Sequence[Effect] = (),
    *,
    start_ns: int = START_NS,
    batch_attempts: int = BATCH_ATTEMPTS,
) -> Iterator[pa.Table]:
    """The truth behind `generate`: one row per attempt, batch by batch."""
    from telemetry.simulator.fleet_spans import truth_of

    for facts in _batches(attempts, days, seed, effects, start_ns, batch_attempts):
        yield truth_of(facts)


def _batches(
    attempts: int, days: float, seed: int, effects: Sequence[Effect], start_ns: int, batch_attempts: int
) -> Iterator[Facts]:
    fleet = _Fleet(attempts, days, seed, effects, start_ns)
    done = number = 0
    while done < attempts:
        chance = np.random.default_rng([seed, number])
        first = min(batch_attempts, math.ceil((attempts - done) / _GROWTH))  # leaves room for retries in the last one
        until = 1.0 if first < batch_attempts else min(1.0, (done + first * _GROWTH) / attempts)
        facts = fleet.batch(chance, first, done / attempts, until, most=attempts - done)
        done += len(facts["start_ns"])
        number += 1
        yield facts


class _Fleet:
    """The clients of a fleet and the calendar that they live by."""

    def __init__(self, attempts: int, days: float, seed: int, effects: Sequence[Effect], start_ns: int) -> None:
        self._days = days
        self._start_ns = start_ns
        self._effects = effects
        chance = np.random.default_rng([seed, 2**32 - 1])
        clients = max(64, attempts // 40)
        self._activity = np.cumsum(chance.lognormal(0, 0.5, clients))
        self._activity /= self._activity[-1]
        self._region = _draw(chance, _REGION_SHARES, clients)
        self._network = _draw(chance, _NETWORK_SHARES, clients)
        self._runtime = _draw(chance, _RUNTIME_SHARES, clients)
        self._environment = _draw(chance, _ENVIRONMENT_SHARES, clients)
        self._adoption = chance.random(clients)
        """When a client takes a release, as a share of the roll-out."""
        # Ten-minute bins: quiet nights, busy afternoons, quieter weekends.
        self._bin_day = np.arange(math.ceil(days * 144)) / 144
        weight = 1 - 0.7 * np.cos(2 * np.pi * (self._bin_day - 3 / 24))
        weight *= np.where(self._bin_day % 7 >= 5, 0.6, 1.0)
        for effect in effects:
            inside = (self._bin_day >= effect.from_day) & (self._bin_day < effect.until_day)
            weight = np.where(inside, weight * effect.surge, weight)
        self._calendar = np.concatenate([[0.0], np.cumsum(weight) / np.sum(weight)])

    def batch(self, chance: np.random.Generator, first: int, since: float, until: float, most: int) -> Facts:
        """First attempts that begin between two quantiles of the fleet's calendar, their retries and reconnects."""
        quantile = np.sort(chance.uniform(since, until, first))
        day = np.interp(quantile, self._calendar, np.append(self._bin_day, self._days))
        client = np.searchsorted(self._activity, chance.random(first)).astype(np.int64)
        for effect in self._effects:
            if effect.client is not None and effect.share:
                inside = (day >= effect.from_day) & (day < effect.until_day)
                client[inside & (chance.random(first) < effect.share)] = effect.client
        new: Facts = {
            "start_ns": self._start_ns + (day * DAY_NS).astype(np.int64),
            "client": client,
            "version": self._version(day / self._days, client),
            "synthetic": chance.random(first) < _SYNTHETIC_SHARE,
            "media": _draw(chance, _MEDIA_SHARES, first),
            "required": chance.random(first) < 0.5,
            "number": np.ones(first, np.int64),
            "episode": _ids(chance, first),
            "session": _ids(chance, first),
            "resume": np.zeros(first, bool),
            "resumed": np.zeros(first, bool),
        }
        rounds = [self._play(new, chance)]
        for _ in range(_MOST_ATTEMPTS - 1):
            rounds.append(self._play(self._retries(rounds[-1], chance), chance))
        rounds.append(self._play(self._reconnects(rounds[0], chance), chance))
        return {name: np.concatenate([facts[name] for facts in rounds], axis=-1)[..., :most] for name in rounds[0]}

    def _version(self, when: NDArray[Any], client: NDArray[Any]) -> NDArray[Any]:
        version = np.zeros(len(when), np.int64)
        for since, until in _RELEASES:
            version += when >= since + self._adoption[client] * (until - since)
        return version

    def _play(self, facts: Facts, chance: np.random.Generator) -> Facts:
        """Let attempts happen: how long everything takes, and how they end."""
        count = len(facts["start_ns"])
        facts = facts | {
            "trace": _ids(chance, count),
            "attempt": _ids(chance, count),
            "region": self._region[facts["client"]],
            "network": self._network[facts["client"]],
            "runtime": self._runtime[facts["client"]],
            "environment": self._environment[facts["client"]],
            "relay": chance.random(count) < _RELAY_SHARE,
        }
        segments = np.exp(chance.standard_normal((len(SEGMENTS), count)) * np.array(_SIGMA)[:, None])
        segments *= np.array(_MEDIAN_MS)[:, None] * 1e6
        segments[ROW[Part.USER_MEDIA], facts["media"] == 0] = 0
        segments[ROW[Part.ASSETS], facts["resumed"]] *= 0.1
        segments[ROW[Part.ICE], facts["relay"]] *= 2
        queued = chance.random(count) < _QUEUED_SHARE
        wait_s = np.full(count, _QUEUE_MEDIAN_S)
        failure = _draw(chance, [1 - sum(f.rate for f in FAILURES), *(f.rate for f in FAILURES)], count) - 1
        for effect in self._effects:
            struck = self._struck(effect, facts)
            queued |= struck & (chance.random(count) < effect.queued)
            wait_s[struck] = effect.wait_s
            for part, factor in effect.slower.items():
                segments[ROW[part], struck] *= factor
            keys = [_FAILURE[key] for key in effect.failures]
            planted = _draw(chance, [1 - sum(effect.failures.values()), *effect.failures.values()], count)
            failure = np.where(struck & (planted > 0), np.array([-1, *keys])[planted], failure)
        failure[(failure >= 0) & (_FAILURE_ROW[failure] == ROW[Part.USER_MEDIA]) & (facts["media"] == 0)] = -1
        queued |= np.isin(failure, _QUEUED_KEYS[1:])
        segments[ROW[Part.QUEUE]] += queued * wait_s * S * np.exp(chance.standard_normal(count) * _QUEUE_SIGMA)
        facts |= {"queued": queued, "position": np.where(queued, 1 + chance.geometric(0.3, count), 0)}
        return facts | _fate(segments, failure, queued, chance)

    def _struck(self, effect: Effect, facts: Facts) -> NDArray[Any]:
        day = (facts["start_ns"] - self._start_ns) / DAY_NS
        struck = (day >= effect.from_day) & (day < effect.until_day)
        if effect.region is not None:
            struck &= facts["region"] == REGIONS.index(effect.region)
        if effect.client_version is not None:
            struck &= facts["version"] == VERSIONS.index(effect.client_version)
        if effect.network_type is not None:
            struck &= facts["network"] == NETWORKS.index(effect.network_type)
        if effect.client is not None:
            struck &= facts["client"] == effect.client
        return struck

    def _retries(self, facts: Facts, chance: np.random.Generator) -> Facts:
        retryable = np.array([*(failure.retryable for failure in FAILURES), False])[facts["failure"]]
        again = np.flatnonzero(retryable & ~facts["cut"] & (chance.random(len(retryable)) < _RETRY_SHARE))
        new = _again(facts, again)
        backoff_s = _BACKOFF_S * np.exp(chance.standard_normal(len(again)) * 0.4)
        new["start_ns"] = new["start_ns"] + facts["stop_ns"][again] + (backoff_s * S).astype(np.int64)
        new["number"] = new["number"] + 1
        new["session"] = np.where(new["resume"], new["session"], _ids(chance, len(again)))
        return new

    def _reconnects(self, facts: Facts, chance: np.random.Generator) -> Facts:
        """Clients that come back to a persisted session: four in ten that lost it, one in twenty that left it."""
        share = np.where(np.isin(facts["ending"], _LOST), 0.4, np.where(facts["ending"] == 0, 0.05, 0.0))
        back = np.flatnonzero(facts["connected"] & ~facts["cut"] & (chance.random(len(share)) < share))
        new = _again(facts, back)
        wait_s = 5 * np.exp(chance.standard_normal(len(back)))
        new["start_ns"] = facts["start_ns"][back] + facts["over_ns"][back] + (wait_s * S).astype(np.int64)
        new["number"] = np.ones(len(back), np.int64)
        new["episode"] = _ids(chance, len(back))
        new["resume"] = np.ones(len(back), bool)
        new["resumed"] = chance.random(len(back)) < 0.9
        new["session"] = np.where(new["resumed"], new["session"], _ids(chance, len(back)))
        return new


_GIVEN: Final = (
    *("start_ns", "client", "version", "synthetic", "media", "required"),
    *("number", "episode", "session", "resume", "resumed"),
)


def _again(facts: Facts, which: NDArray[Any]) -> Facts:
    return {name: facts[name][which] for name in _GIVEN}


def _fate(segments: NDArray[Any], failure: NDArray[Any], queued: NDArray[Any], chance: np.random.Generator) -> Facts:
    """When each attempt stops, and why: whichever comes first of its failure, a deadline and the caller's patience."""
    count = len(failure)
    every = np.arange(count)
    limits = list(STEP_LIMITS_NS.values())
    row = _FAILURE_ROW[failure]
    after = np.array([np.nan if f.after_s is None else f.after_s * S for f in FAILURES])[failure]
    after[failure < 0] = np.nan
    fixed = np.flatnonzero(~np.isnan(after))
    segments[row[fixed], fixed] = after[fixed]
    ends = np.rint(np.cumsum(segments, axis=0)).astype(np.int64)
    starts = np.vstack([np.zeros((1, count), np.int64), ends[:-1]])

    never = np.iinfo(np.int64).max
    part_start, part_end = starts[row, every], ends[row, every]
    within = np.where(np.isnan(after), 0.05 + 0.9 * chance.random(count), 1.0)
    fails_ns = np.where(failure >= 0, part_start + (within * (part_end - part_start)).astype(np.int64), never)
    stop_ns, stop_failure = fails_ns.copy(), failure.copy()
    for number, (state, limit_ns) in enumerate(zip(STEP_LIMITS_NS, limits, strict=True)):
        first, last = STEP_ROWS[state]
        deadline = starts[first] + limit_ns
        late = (ends[last] > deadline) & (deadline < stop_ns) & (starts[first] < stop_ns)
        stop_failure = np.where(late, number, stop_failure)
        stop_ns = np.where(late, deadline, stop_ns)
    late = (ends[-1] > CONNECT_LIMIT_NS) & (stop_ns > CONNECT_LIMIT_NS)
    stop_failure = np.where(late, len(limits), stop_failure)
    stop_ns = np.where(late, CONNECT_LIMIT_NS, stop_ns)

    connected_ns = ends[-1]
    patience = np.where(
        queued & (chance.random(count) < 0.5),
        starts[ROW[Part.QUEUE]] + (chance.exponential(_PATIENCE_S, count) * S).astype(np.int64),
        never,
    )
    gives_up = chance.random(count) < _CANCEL_SHARE
    patience = np.where(gives_up, (chance.random(count) * connected_ns).astype(np.int64), patience)
    cancelled = (patience < stop_ns) & (patience < connected_ns)
    stop_ns = np.where(cancelled, patience, np.minimum(stop_ns, connected_ns))
    connected = stop_ns == connected_ns
    stop_failure = np.where(cancelled | connected, -1, stop_failure)

    life_ns = (_LIFE_MEDIAN_S * S * np.exp(chance.standard_normal(count) * _LIFE_SIGMA)).astype(np.int64)
    over_ns = np.where(connected, stop_ns + life_ns, stop_ns)
    cut = chance.random(count) < _UNFINISHED_SHARE
    half = chance.random(count) < 0.5
    cut_ns = np.where(cut, (chance.random(count) * np.where(half, stop_ns, over_ns)).astype(np.int64), never)
    return {
        "starts": starts,
        "ends": ends,
        "stop_ns": stop_ns,
        "over_ns": over_ns,
        "cut": cut,
        "cut_ns": cut_ns,
        "connected": connected,
        "cancelled": cancelled,
        "failure": stop_failure,
        "ending": _draw(chance, [ending.share for ending in ENDINGS], count),
    }


def _draw(chance: np.random.Generator, shares: Sequence[float], count: int) -> NDArray[Any]:
    """Numbers of the shares, drawn by them."""
    return np.searchsorted(np.cumsum(shares)[:-1], chance.random(count), side="right")


def _ids(chance: np.random.Generator, count: int) -> NDArray[Any]:
    """Random 128-bit ids, as complex pairs would be: one void element each, so that they sort with their attempt."""
    return chance.integers(0, 256, (count, 16), dtype=np.uint8).view("V16").reshape(count)
