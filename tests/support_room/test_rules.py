"""The table of rules: complete, readable, and the same in Python and in SQL."""

import math
import random

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from telemetry import settings
from telemetry.semconv import NO_PING_ANSWER, ConnectionError, Detail, DisconnectReason, EndedBy, Outcome, Part, State
from telemetry.support.rule import Certainty, Owner
from telemetry.support.rules import RULES, decide, view
from telemetry.support.verdict import FACTS, judge

_COUNTS = st.none() | st.integers(0, 3)
_TIMES = st.none() | st.integers(-(2**62), 2**62)
_WORDS = {
    "outcome": list(Outcome),
    "error_type": [None, *ConnectionError, "novel"],
    "detail": [None, *Detail, "http_401", "http_403", "http_503", "http_599", "http_302", "close_4999", "novel"],
    "failing_step": [None, *State],
    "failing_part": [None, *Part],
    "media_requested": [None, "none", "microphone"],
    "media_granted": [None, "none", "microphone"],
    "disconnect_reason": [None, *DisconnectReason, "novel"],
    "disconnect_detail": [None, *Detail, "close_4999"],
    "ended_by": [None, *EndedBy],
    "close_code": [None, 1000, 1006, 1009, 4400, 4415, 4999],
    "close_reason": [None, NO_PING_ANSWER, "text"],
    "message": [None, "it broke", "{braces} and {server}"],
    "relay": [None, True, False],
}
_NUMBERS = {
    **{name: _COUNTS for name in FACTS if name.startswith("ice_")},
    **{name: _TIMES for name in FACTS if name.endswith("_ns")},
    "queue_position_first": _COUNTS,
    "queue_position_last": _COUNTS,
    "reached_step": st.none() | st.integers(0, 5),
    "media_last_seen_ago_ms": st.none() | st.sampled_from([0, 1000, 1001, 5000, 5001]),
    "rtt_min_s": st.none() | st.floats(),
    "video_frozen_max_ms": st.none() | st.sampled_from([0, 2000, 2001]),
    "video_packets_lost": st.none() | st.integers(0, 2**62),
    "video_packets_received": st.none() | st.integers(0, 2**62),
    "server_port": st.none() | st.integers(0, 65535),
}
_FACTS = st.fixed_dictionaries(
    {
        **{name: st.sampled_from([None if word is None else word for word in words]) for name, words in _WORDS.items()},
        **_NUMBERS,
        **{name: st.none() | st.text(max_size=5) for name in FACTS if name not in _WORDS and name not in _NUMBERS},
    }
)
_ARROW = {
    **{name: pa.int64() for name in _NUMBERS},
    "rtt_min_s": pa.float64(),
    "rtt_max_s": pa.float64(),
    "close_code": pa.int64(),
    "relay": pa.bool_(),
}
_NOT_TESTED = {"rtt_max_s", "last_sample_number", "span_count", "attempt_number", "retryable"}


def _facts(**known: object) -> dict[str, object]:
    return {name: known.get(name) for name in FACTS}


def test_ids_are_unique():
    """Every rule has an id of its own."""
    ids = [rule.id for rule in RULES]

    assert len(set(ids)) == len(ids)


def test_rules_read_known_facts():
    """A rule tests and cites only facts that an attempt has."""
    unknown = {fact for rule in RULES for fact in rule.evidence} - set(FACTS)

    assert unknown == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_rule_is_whole(rule):
    """A rule gives its reason, its source and the next step, and says as much as its certainty allows."""
    assert rule.sentence.endswith(".")
    assert rule.next.endswith((".", "?"))
    assert rule.because
    assert rule.source
    match rule.certainty:
        case Certainty.CERTAIN:
            assert rule.owner is not Owner.UNDETERMINED
        case Certainty.LIKELY:
            assert rule.owner is not Owner.UNDETERMINED
            assert rule.rivals
        case Certainty.INSUFFICIENT:
            assert rule.owner in (Owner.UNDETERMINED, Owner.TELEMETRY)
            assert rule.missing
            assert len(rule.suspects) >= (2 if rule.owner is Owner.UNDETERMINED else 1)


@pytest.mark.parametrize("detail", Detail)
def test_every_detail_has_a_rule(detail):
    """A failure with any of the known details is decided by a rule that looks at the detail."""
    rule = decide(_facts(outcome="failed", error_type="serverConnectionFailed", detail=str(detail)))

    assert "detail" in {fact for condition in rule.when for fact in condition.facts}


@pytest.mark.parametrize("detail", [Detail.STEP_DEADLINE, Detail.CONNECT_DEADLINE])
@pytest.mark.parametrize("part", [part for part in Part if part is not Part.OTHER])
def test_every_deadline_has_a_rule_for_its_part(detail, part):
    """A deadline is judged by the part that was open when it ran out."""
    rule = decide(_facts(outcome="failed", error_type="sessionTimeout", detail=str(detail), failing_part=str(part)))

    assert "failing_part" in {fact for condition in rule.when for fact in condition.facts}


@hypothesis_settings(deadline=None)
@given(_FACTS)
def test_any_facts_yield_one_verdict(facts):
    """Whatever was recorded, there is exactly one verdict, in words, and no exception."""
    verdict = judge(facts)

    assert verdict.rule in {rule.id for rule in RULES}
    assert verdict.sentence
    assert verdict.to_dict()["owner"] in list(Owner)


def _fleet(seed: int, size: int) -> list[dict[str, object]]:
    """Facts drawn at random, with unlikely combinations as likely as any."""
    draw = random.Random(seed)
    choices: dict[str, list[object]] = {
        **{name: [None, "text"] for name in FACTS},
        **{name: list(words) for name, words in _WORDS.items()},
        **{name: [None, 0, 1, 3] for name in _NUMBERS},
        **{name: [None, -1, 0, 2_999_999_999, 3_000_000_001, 2**62] for name in FACTS if name.endswith("_ns")},
        "media_last_seen_ago_ms": [None, 0, 1000, 1001, 5000, 5001],
        "rtt_min_s": [None, 0.0, 0.4, 0.41, math.nan, math.inf],
        "video_frozen_max_ms": [None, 2000, 2001],
        "video_packets_lost": [None, 0, 5, 6, 2**62],
        "video_packets_received": [None, 0, 94, 95, 2**62],
    }
    return [{name: draw.choice(choices[name]) for name in FACTS} for _ in range(size)]


def test_sql_agrees_with_python():
    """The view `verdicts` judges any attempt as Python does."""
    fleet = _fleet(seed=1, size=5_000)
    columns = {
        name: pa.array(
            [None if row[name] is None else row[name] if name in _ARROW else str(row[name]) for row in fleet]
            if name not in _NOT_TESTED
            else [None] * len(fleet),
            _ARROW.get(name, pa.string()),
        )
        for name in FACTS
    }
    connection = duckdb.connect()
    connection.register("connections", pa.table({**columns, "place": list(range(len(fleet)))}))
    connection.execute(view())

    judged = connection.execute("select rule, owner, certainty from verdicts order by place").fetchall()

    assert [decide({**row}).id for row in fleet] == [rule for rule, _, _ in judged]
    by_id = {rule.id: rule for rule in RULES}
    assert [(by_id[rule].owner, by_id[rule].certainty) for rule, _, _ in judged] == [tuple(row[1:]) for row in judged]


def test_view_is_up_to_date():
    """`queries/schema/verdicts.sql` is what the table of rules says; `python -m telemetry.support.rules` writes it."""
    written = (settings.data_folder("queries") / "schema" / "verdicts.sql").read_text(encoding="utf-8")

    assert written == view()
