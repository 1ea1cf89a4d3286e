"""Rules on a schedule: what fires, since when, what webhooks are told, and what `/metrics` shows."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from telemetry.alerts import watch, webhook
from telemetry.alerts.judging import Rule
from telemetry.alerts.watch import Plan, Watch
from telemetry.alerts.webhook import Webhook
from telemetry.errors import StoreError, UsageError
from telemetry.web import prometheus
from tests.support.hooks import Posts, hook, status

SLOW = Rule(name="slow", report="step_durations", column="p95_ms", above=100, params={"since": "1h"})
PAGED = replace(SLOW, labels={"severity": "page"})
T0 = 1_790_000_000 * 10**9


class Answers:
    """A report whose rows the test sets, and a clock that it turns."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] | None = []
        self.now_ns = T0
        self.noted = asyncio.Event()

    def clock(self) -> int:
        """The time, which a round asks for when its answer is there."""
        self.noted.set()
        return self.now_ns

    def ask(self, report: str, params: Mapping[str, str]) -> pa.Table:
        if self.rows is None:
            raise StoreError("the disk is gone")
        schema = pa.schema(
            [("bucket", pa.timestamp("ns", "UTC")), ("step", pa.string()), ("p95_ms", pa.int64()), ("id", pa.string())]
        )
        return pa.Table.from_pylist(self.rows, schema)

    async def round(self, watched: Watch, **p95_ms: int) -> None:
        """A minute later, check what these steps take."""
        self.now_ns += 60 * 10**9
        self.rows = [{"bucket": self.now_ns, "step": step, "p95_ms": ms, "id": str(ms)} for step, ms in p95_ms.items()]
        await watched.round()


@asynccontextmanager
async def watching(answers: Answers, *hooks: Posts, rule: Rule = PAGED) -> AsyncIterator[Watch]:
    """A watch whose rounds the test calls, with its webhooks at work and its own first round behind it."""
    webhooks = tuple(Webhook(f"hook{number}", posts.url) for number, posts in enumerate(hooks))
    watched = Watch(Plan((rule,), webhooks, 86_400), answers.ask, url="http://here", now_ns=answers.clock)
    async with watched.running():
        await answers.noted.wait()
        yield watched


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Webhooks are tried once."""
    monkeypatch.setattr(webhook, "TRIES", 1)


def told(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Which steps began and ended to be slow."""
    return [(alert["status"], alert["labels"]["step"]) for alert in body["alerts"]]


@pytest.mark.real
async def test_only_changes_are_told() -> None:
    """A webhook is told when an alert begins and when it ends, and nothing in between."""
    answers = Answers()
    async with hook() as posts, watching(answers, posts) as watched:
        await answers.round(watched, a=200, b=50)
        await posts.until(1)
        await answers.round(watched, a=300, b=50)
        await answers.round(watched, a=300, b=500)
        await posts.until(2)
        await answers.round(watched, b=500)
        await posts.until(3)
        await answers.round(watched, b=50)
        await posts.until(4)

    assert [told(body) for body in posts.bodies] == [
        [("firing", "a")],
        [("firing", "b")],
        [("resolved", "a")],
        [("resolved", "b")],
    ]


@pytest.mark.real
async def test_a_post_is_as_alertmanager_writes_it() -> None:
    """Labels, times, links and fingerprints stand where a receiver of Alertmanager's posts looks for them."""
    answers = Answers()
    async with hook() as posts, watching(answers, posts) as watched:
        await answers.round(watched, a=200)
        await posts.until(1)
        await answers.round(watched, a=50)
        await posts.until(2)

    first, second = posts.bodies
    assert first == {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "hook0",
        "groupLabels": {},
        "commonLabels": {"alertname": "slow", "report": "step_durations", "severity": "page", "step": "a"},
        "commonAnnotations": {},
        "externalURL": "http://here",
        "alerts": [
            {
                "status": "firing",
                "labels": {"alertname": "slow", "report": "step_durations", "severity": "page", "step": "a"},
                "annotations": {"summary": "slow", "description": "p95_ms is 200, above 100"},
                "startsAt": "2026-09-21T14:14:20.000Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://here/api/reports/step_durations?since=1h",
                "fingerprint": first["alerts"][0]["fingerprint"],
            }
        ],
    }
    assert second["status"] == second["alerts"][0]["status"] == "resolved"
    assert second["alerts"][0]["startsAt"] == "2026-09-21T14:14:20.000Z"
    assert second["alerts"][0]["endsAt"] == "2026-09-21T14:15:20.000Z"
    assert second["alerts"][0]["fingerprint"] == first["alerts"][0]["fingerprint"]


@pytest.mark.real
@pytest.mark.usefixtures("impatient")
async def test_a_webhook_that_was_away_learns_what_holds() -> None:
    """After a failure the next round tells what is different by then; the other webhooks are told in time."""
    answers = Answers()
    async with hook([status(503), status(503)]) as away, hook() as there, watching(answers, away, there) as watched:
        await answers.round(watched, a=200)
        await away.until(1)
        await there.until(1)
        await answers.round(watched, b=200)
        await away.until(2)
        await there.until(2)
        await answers.round(watched, b=200, c=200)
        await away.until(3)
        await there.until(3)
        text = prometheus.text(watched.figures())

    assert told(away.bodies[2]) == [("firing", "b"), ("firing", "c")]
    assert [told(body) for body in there.bodies] == [
        [("firing", "a")],
        [("firing", "b"), ("resolved", "a")],
        [("firing", "c")],
    ]
    assert 'dp_telemetry_webhook_posts_total{webhook="hook0",result="failed"} 2' in text
    assert 'dp_telemetry_webhook_posts_total{webhook="hook1",result="told"}' in text


async def test_figures() -> None:
    """`/metrics` has what fires with its labels, and how each rule fared; a failed check leaves the state as it was."""
    answers = Answers()
    async with watching(answers) as watched:
        await answers.round(watched, a=200, b=50)
        answers.rows = None
        await watched.round()
        lines = prometheus.text(watched.figures()).splitlines()

    assert 'dp_telemetry_alert_firing{step="a",severity="page",alertname="slow",report="step_durations"} 1' in lines
    assert 'dp_telemetry_rule_rows{alertname="slow",status="firing"} 1' in lines
    assert 'dp_telemetry_rule_rows{alertname="slow",status="ok"} 1' in lines
    assert 'dp_telemetry_rule_errors_total{alertname="slow"} 1' in lines
    assert f'dp_telemetry_rule_checked_timestamp_seconds{{alertname="slow"}} {T0 // 10**9 + 60}' in lines


async def test_alerts_are_bounded() -> None:
    """A rule that fires on very many rows makes a bounded number of alerts."""
    answers = Answers()
    async with watching(answers) as watched:
        await answers.round(watched, **{f"s{number}": 200 for number in range(500)})
        (firing, rows, *_) = watched.figures()

    assert len(firing.samples) == watch.MOST_ALERTS
    assert 500 in [value for _, value in rows.samples]


@pytest.mark.parametrize(
    ("column", "message"), [("p96_ms", "has no column 'p96_ms'"), ("step", "column 'step' .* holds no numbers")]
)
def test_a_rule_that_cannot_be_judged_is_refused_at_once(column: str, message: str) -> None:
    """A rule on a column that its report does not have is refused before anything is served."""
    with pytest.raises(UsageError, match=message):
        Watch(Plan((replace(SLOW, column=column),)), Answers().ask)


def test_nothing_to_watch() -> None:
    """Without rules there are no alerts."""
    assert not any(figure.samples for figure in Watch(Plan(()), Answers().ask).figures())
