"""Tokens are compared by digest, every one of them."""

import hmac

import pytest

from telemetry import settings
from telemetry.errors import UsageError
from telemetry.tokens import Tokens


def test_any_of_them_is_known() -> None:
    """Each token is known, and nothing else, however odd: `\\udcff` is what the environment makes of a byte."""
    tokens = Tokens(["one", "zwei€", "\udcff"])

    assert all(map(tokens.know, ("one", "zwei€", "\udcff")))
    assert not any(map(tokens.know, ("", "o", "One", "one ", "zwei", "\udcfe")))
    assert tokens
    assert not Tokens(())
    assert not Tokens(()).know("")


@pytest.mark.parametrize("given", ["zwei€", "one, t\two", "one,\udcff"])
def test_tokens_that_nobody_could_show(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """A token that no header carries is refused where it is set, and not repeated."""
    monkeypatch.setenv(settings.TOKEN_VARIABLE, given)
    with pytest.raises(UsageError, match="no header carries") as refused:
        settings.tokens()

    assert given not in refused.value.message


def test_time_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is shown, as many comparisons of equal lengths are made: neither a length nor a match shows."""
    lengths: list[tuple[int, int]] = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: lengths.append((len(a), len(b))) or a == b)
    tokens = Tokens(["first", "the second"])

    for shown in ("first", "x", "y" * 1000):
        tokens.know(shown)

    assert lengths == [(32, 32)] * 6
