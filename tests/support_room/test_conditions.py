"""Conditions on facts."""

import pytest

from telemetry.support.conditions import AtMost, Begins, Differ, Known, MoreThanOneIn, Over, Unknown, is_


@pytest.mark.parametrize(
    ("condition", "met", "unmet"),
    [
        (is_("a", "x", "y"), {"a": "y"}, {"a": "z"}),
        (Begins("a", "http_"), {"a": "http_401"}, {"a": "httpx"}),
        (Over("a", 2), {"a": 3}, {"a": 2}),
        (AtMost("a", 2), {"a": 2}, {"a": 3}),
        (Known("a"), {"a": 0}, {"a": None}),
        (Unknown("a"), {"a": None}, {"a": ""}),
        (MoreThanOneIn("a", "b", 20), {"a": 6, "b": 94}, {"a": 5, "b": 95}),
        (Differ("a", "b"), {"a": "x", "b": "y"}, {"a": "x", "b": "x"}),
    ],
)
def test_condition(condition, met, unmet):
    """A condition holds for what it says and not for its opposite."""
    assert condition.holds(met)
    assert not condition.holds(unmet)


@pytest.mark.parametrize(
    "condition",
    [is_("a", "x"), Begins("a", ""), Over("a", -1), AtMost("a", 1), MoreThanOneIn("a", "b", 2), Differ("a", "b")],
)
def test_unrecorded_facts_prove_nothing(condition):
    """A fact that was not recorded meets no condition, not even that it differs."""
    assert not condition.holds({"a": None, "b": None})


def test_words_are_quoted_in_sql():
    """A quote in a word cannot end the SQL literal."""
    assert is_("a", "it's").sql() == "a = 'it''s'"
