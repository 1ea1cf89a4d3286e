"""Check alert rules on a schedule: know what fires, show it as figures, and tell webhooks what changed.

What fires is recomputed by every round. A webhook is told the difference between that and what it was last told, so one
that was away learns what holds when it is back, however often that changed meanwhile, and nothing piles up for it.
A rule that cannot be checked leaves what it said before as it was, and is counted.
After a restart everything that fires is told again.
All of it runs on one event loop; only reports are asked in threads.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from telemetry import reports
from telemetry.alerts import webhook
from telemetry.alerts.judging import Ask, Finding, Rule, Status, judge, written
from telemetry.alerts.webhook import Webhook
from telemetry.errors import ServerError, TelemetryError
from telemetry.web.prometheus import Figure, Samples

EVERY_S: Final = 60.0
MOST_ALERTS: Final = 100
"""Of one rule, and in one post: a rule that fires on more rows has said enough."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to check, how often, and whom to tell."""

    rules: tuple[Rule, ...]
    webhooks: tuple[Webhook, ...] = ()
    every_s: float = EVERY_S


@dataclass(frozen=True, slots=True)
class Alert:
    """One row on which a rule fires."""

    rule: Rule
    labels: Mapping[str, str]
    why: str
    value: float | None
    since_ns: int

    @property
    def key(self) -> str:
        """The same from one round, and from one run, to the next."""
        return hashlib.sha256(json.dumps(self.labels, sort_keys=True).encode()).hexdigest()[:16]


class Watch:
    """The rules and what became of them. Belongs to one event loop; `figures` may be asked from any thread."""

    def __init__(
        self, plan: Plan, ask: Ask, *, url: str = "http://localhost", now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        """
        Args:
            ask: answers a report; called in another thread.
            url: the address of the pages, for links.

        Raises:
            UsageError: a rule names a column that its report does not have.
            StoreError: the store cannot be asked.
        """
        self._plan = plan
        self._ask = ask
        self._url = url
        self._now_ns = now_ns
        self._rows: dict[str, Counter[Status]] = {}
        self._checked_ns: dict[str, int] = {}
        self._errors = Counter[str]()
        self._alerts: dict[str, dict[str, Alert]] = {}
        self._outboxes = [Outbox(hook, url) for hook in plan.webhooks]
        for rule in plan.rules:
            judge(rule, ask(rule.report, _of_no_time(rule)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Check now and then until the end of the block."""
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(outbox.run()) for outbox in self._outboxes]
            running.append(tasks.create_task(self._run()))
            try:
                yield
            finally:
                for task in running:
                    task.cancel()

    async def _run(self) -> None:
        while True:
            await self.round()
            await asyncio.sleep(self._plan.every_s)

    async def round(self) -> None:
        """Check every rule once, and pass on what changed."""
        for rule in self._plan.rules:
            try:
                self._note(rule, judge(rule, await asyncio.to_thread(self._ask, rule.report, rule.params)))
            except TelemetryError as error:
                self._errors[rule.name] += 1
                _log.warning("rule %r could not be checked: %s", rule.name, error)
        firing = {alert.key: alert for alerts in self._alerts.values() for alert in alerts.values()}
        for outbox in self._outboxes:
            outbox.put(firing, self._now_ns())

    def _note(self, rule: Rule, findings: Sequence[Finding]) -> None:
        before, now_ns = self._alerts.get(rule.name, {}), self._now_ns()
        alerts: dict[str, Alert] = {}
        for finding in findings:
            if finding.status is Status.FIRING and len(alerts) < MOST_ALERTS:
                alert = Alert(rule, _labels(rule, finding), finding.why, finding.value, now_ns)
                known = before.get(alert.key, alert)
                alerts.setdefault(alert.key, Alert(rule, alert.labels, alert.why, alert.value, known.since_ns))
        self._alerts[rule.name] = alerts
        self._rows[rule.name] = Counter(finding.status for finding in findings)
        self._checked_ns[rule.name] = now_ns

    def figures(self) -> list[Figure]:
        """The state of every rule for Prometheus; each alert that fires is a series of its own."""
        names = [rule.name for rule in self._plan.rules]
        rows: Samples = [
            ({"alertname": name, "status": status}, self._rows.get(name, Counter())[status])
            for name in names
            for status in Status
        ]
        checked: Samples = [({"alertname": name}, ns / 1e9) for name, ns in list(self._checked_ns.items())]
        errors: Samples = [({"alertname": name}, self._errors[name]) for name in names]
        firing: Samples = [(alert.labels, 1) for alerts in list(self._alerts.values()) for alert in alerts.values()]
        posts: Samples = [
            ({"webhook": outbox.name, "result": result}, times)
            for outbox in self._outboxes
            for result, times in outbox.posts.items()
        ]
        return [
            Figure("dp_telemetry_alert_firing", "gauge", "1 for each row on which a rule fires.", firing),
            Figure("dp_telemetry_rule_rows", "gauge", "Rows of a rule's report, by what became of them.", rows),
            Figure("dp_telemetry_rule_checked_timestamp_seconds", "gauge", "When a rule was last checked.", checked),
            Figure("dp_telemetry_rule_errors_total", "counter", "Checks whose report gave no answer.", errors),
            Figure("dp_telemetry_webhook_posts_total", "counter", "Posts to webhooks, retries not counted.", posts),
        ]


class Outbox:
    """What one webhook was told, and what it is to be told next."""

    def __init__(self, hook: Webhook, url: str) -> None:
        self.name = hook.name
        self.posts = {"told": 0, "failed": 0}
        self._hook = hook
        self._url = url
        self._told: dict[str, Alert] = {}
        self._firing: Mapping[str, Alert] = {}
        self._now_ns = 0
        self._round = asyncio.Event()

    def put(self, firing: Mapping[str, Alert], now_ns: int) -> None:
        """Set what fires; it replaces what was set before."""
        self._firing, self._now_ns = firing, now_ns
        self._round.set()

    async def run(self) -> None:
        """Tell what changed, round after round."""
        async with webhook.client(self._hook) as client:
            while True:
                await self._round.wait()
                self._round.clear()
                while changes := self._changes():
                    body = message(changes, self._hook.name, self._url, self._now_ns)
                    try:
                        await webhook.post(client, self._hook, body)
                    except ServerError as error:
                        self.posts["failed"] += 1
                        _log.warning("%s; it is told after the next check", error)
                        break
                    self.posts["told"] += 1
                    for key, (status, alert) in changes.items():
                        if status == "firing":
                            self._told[key] = alert
                        else:
                            del self._told[key]

    def _changes(self) -> "Changes":
        begun = {key: ("firing", alert) for key, alert in self._firing.items() if key not in self._told}
        over = {key: ("resolved", alert) for key, alert in self._told.items() if key not in self._firing}
        return dict(list((begun | over).items())[:MOST_ALERTS])


Changes = dict[str, tuple[str, Alert]]
"""What to tell, by key: firing or resolved, and the alert."""


def message(changes: Changes, receiver: str, url: str, now_ns: int) -> dict[str, Any]:
    """A post as Alertmanager writes it, version 4."""
    alerts = [
        {
            "status": status,
            "labels": dict(alert.labels),
            "annotations": {"summary": alert.rule.name, "description": alert.why},
            "startsAt": _time(alert.since_ns),
            "endsAt": _time(now_ns) if status == "resolved" else "0001-01-01T00:00:00Z",
            "generatorURL": f"{url}/api/reports/{quote(alert.rule.report)}?{urlencode(alert.rule.params)}",
            "fingerprint": key,
        }
        for key, (status, alert) in changes.items()
    ]
    labels = [set(alert.labels.items()) for _, alert in changes.values()]
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing" if any(status == "firing" for status, _ in changes.values()) else "resolved",
        "receiver": receiver,
        "groupLabels": {},
        "commonLabels": dict(sorted(set.intersection(*labels))),
        "commonAnnotations": {},
        "externalURL": url,
        "alerts": alerts,
    }


def _labels(rule: Rule, finding: Finding) -> dict[str, str]:
    return {**finding.labels, **rule.labels, "alertname": rule.name, "report": rule.report}


def _of_no_time(rule: Rule) -> dict[str, str]:
    """The rule's question over an empty range: it costs nothing, and has the columns."""
    known = {param.name for param in reports.find(rule.report).params}
    return {**rule.params, **{name: "0" * 16 for name in ("since", "until") if name in known}}


def _time(ns: int) -> str:
    return written(datetime.fromtimestamp(ns / 1e9, UTC))
