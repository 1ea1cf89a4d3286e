"""What the verdict says of faults whose true cause is known: the simulator's scenarios, and the matrix of all."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan

from telemetry.receiver.otlp_protobuf import decode_protobuf
from telemetry.support.asking import ask
from telemetry.support.rule import Certainty, Owner
from telemetry.support.rules import decide
from telemetry.support.verdict import Verdict, judge
from tests.support.source import MemorySource


@dataclass(frozen=True)
class Truth:
    """What really was the matter."""

    owner: Owner
    rule: str
    """The rule that names the cause."""


def _truth(owner: Owner, rule: str, *scenarios: str) -> dict[str, Truth]:
    return dict.fromkeys(scenarios, Truth(owner, rule))


TRUTHS = {
    **_truth(Owner.NOBODY, "connected.ended", "steady", "slow_assets", "very_slow", "queue_admitted", "microphone"),
    **_truth(Owner.NOBODY, "connected.ended", "persisted_reconnect", "persisted_gone", "flaky", "closed_by_server"),
    **_truth(Owner.USER, "ended.idle", "idle_timeout"),
    **_truth(Owner.USER, "cancelled.queue", "cancelled_in_queue"),
    **_truth(Owner.USER, "media.permission_denied", "permission_denied"),
    **_truth(Owner.USER, "media.device_not_found", "device_missing"),
    **_truth(Owner.USER, "media.device_in_use", "device_in_use"),
    **_truth(Owner.USER, "connected.unheard", "permission_denied_optional"),
    **_truth(Owner.CLIENT, "client.capture_missing", "not_supported"),
    **_truth(Owner.CAPACITY, "queue.busy", "busy"),
    **_truth(Owner.CAPACITY, "queue.full", "queue_full"),
    **_truth(Owner.CAPACITY, "queue.timeout", "queue_gave_up"),
    **_truth(Owner.CONFIGURATION, "open.http_401", "refused_token"),
    **_truth(Owner.CONFIGURATION, "open.http_403", "forbidden"),
    **_truth(Owner.CONFIGURATION, "search.token_refused", "expired_token"),
    **_truth(Owner.CONFIGURATION, "search.scene_unknown", "unknown_scene"),
    **_truth(Owner.CONFIGURATION, "open.not_signalling", "other_protocol", "no_protocol", "web_page"),
    **_truth(Owner.SERVER, "open.http_gateway", "unavailable"),
    **_truth(Owner.SERVER, "server.socket_reset", "dies_searching", "dies_downloading", "dies_connecting"),
    **_truth(Owner.SERVER, "server.error", "fails_inside"),
    **_truth(Owner.SERVER, "queue.silent_server", "silent"),
    **_truth(Owner.SERVER, "server.assets_stalled", "assets_stall"),
    **_truth(Owner.SERVER, "server.asset_failed", "asset_missing"),
    **_truth(Owner.SERVER, "negotiate.unanswered", "times_out_connecting"),
    **_truth(Owner.SERVER, "negotiate.answer_unusable", "bad_answer"),
    **_truth(Owner.SERVER, "negotiate.sdp_refused_by_server", "offer_refused"),
    **_truth(Owner.SERVER, "ice.no_relay_offered", "never_answers_ice"),
    **_truth(Owner.SERVER, "ice.none_from_server", "no_candidates"),
    **_truth(Owner.SERVER, "dtls.refused", "wrong_fingerprint"),
    **_truth(Owner.SERVER, "media.never_started", "no_media"),
    **_truth(Owner.SERVER, "server.protocol_violation", "junk", "out_of_order"),
    **_truth(Owner.SERVER, "server.message_too_big", "oversized"),
    **_truth(Owner.SERVER, "lost.socket_reset", "dies_connected"),
    **_truth(Owner.SERVER, "lost.media_silent", "stops_media"),
    **_truth(Owner.SERVER, "lost.peer_closed", "hangs_up_media"),
    **_truth(Owner.SERVER, "lost.server_error", "restarts_connected"),
}
"""What each scenario does to its client, whatever the client can see of it."""


@dataclass(frozen=True)
class Judged:
    """A fault, what it truly was, and what the verdict says."""

    fault: str
    truth: Truth
    verdict: Verdict

    @property
    def named(self) -> bool:
        """The verdict names the true owner."""
        return self.verdict.owner is self.truth.owner

    @property
    def abstained(self) -> bool:
        """The verdict names nobody, and the true owner is among its suspects."""
        return self.verdict.owner is Owner.UNDETERMINED and self.truth.owner in self.verdict.suspects

    @property
    def right(self) -> bool:
        """The cause is named, and the owner is named or left open."""
        return self.verdict.rule == self.truth.rule and (self.named or self.abstained)

    @property
    def honest(self) -> bool:
        """The cause is named, and the true owner is named or, where the verdict is not certain, among its suspects."""
        hedged = self.verdict.certainty is not Certainty.CERTAIN and self.truth.owner in self.verdict.suspects
        return self.verdict.rule == self.truth.rule and (self.named or hedged)


def judge_spans(fault: str, truth: Truth, spans: Sequence[ReadableSpan]) -> Judged:
    """Carry an attempt's spans through OTLP into the relations, and judge the last attempt among them."""
    return Judged(fault, truth, judge(*recorded(spans)))


def recorded(spans: Sequence[ReadableSpan]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of `connections` of the last attempt among the spans, and its rows of `spans`."""
    source = MemorySource(decode_protobuf(encode_spans(spans).SerializeToString(), received_ns=0).table)
    facts = source.query("select * from connections order by start_ns desc, trace_id limit 1").to_pylist()[0]
    by_view = source.query("select rule from verdicts where trace_id = $id", {"id": facts["trace_id"]}).to_pylist()
    assert by_view == [{"rule": decide(facts).id}], "the fleet's view judges otherwise than the session's verdict"
    return facts, ask(source, "spans_of", {"trace_id": facts["trace_id"]})


def matrix(judged: Iterable[Judged]) -> str:
    """The confusion matrix of owners, then precision and recall of every rule, then what went wrong.

    LEANS marks a verdict that is likely to lie with another, and says that it may be the true owner.
    """
    judged = list(judged)
    owners = list(Owner)
    counts = Counter((one.truth.owner, one.verdict.owner) for one in judged)
    rows = [owner for owner in owners if any(counts[owner, said] for said in owners)]
    columns = [owner for owner in owners if any(counts[true, owner] for true in owners)]
    lines = ["true owner \\ verdict".ljust(24) + "".join(column.rjust(15) for column in columns)]
    lines += [row.ljust(24) + "".join(str(counts[row, column] or ".").rjust(15) for column in columns) for row in rows]
    lines += ["", "rule".ljust(36) + "precision".rjust(10) + "recall".rjust(8) + "n".rjust(4)]
    for rule in sorted({one.truth.rule for one in judged} | {one.verdict.rule for one in judged}):
        said = [one for one in judged if one.verdict.rule == rule]
        true = [one for one in judged if one.truth.rule == rule]
        hit = sum(one.verdict.rule == one.truth.rule for one in said)
        precision = f"{hit / len(said):.2f}" if said else "-"
        recall = f"{hit / len(true):.2f}" if true else "-"
        lines.append(rule.ljust(36) + precision.rjust(10) + recall.rjust(8) + str(len(true)).rjust(4))
    named, abstained = sum(one.named for one in judged), sum(one.abstained for one in judged)
    lines += [
        "",
        f"{len(judged)} faults: owner named {named}, left open with the true owner among the suspects {abstained}",
    ]
    lines += [
        f"{'LEANS' if one.honest else 'WRONG'} {one.fault}: {one.verdict.rule} ({one.verdict.owner}), "
        f"truly {one.truth.rule} ({one.truth.owner})"
        for one in judged
        if not one.right
    ]
    return "\n".join(lines)


def scenarios() -> list[Judged]:
    """Every scenario of the simulator, played and judged."""
    from tests.test_end_to_end import played_once

    return [judge_spans(name, TRUTHS[name], one.spans) for name, one in played_once().items()]
