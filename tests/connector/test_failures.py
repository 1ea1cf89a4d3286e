"""What each detail code means to people and to retries."""

import pytest

from telemetry.connector.failures import CAUSES, cause_of
from telemetry.semconv import ConnectionError, Detail, close_detail, http_detail


@pytest.mark.parametrize("detail", Detail)
def test_every_detail_has_words(detail):
    """Every detail code has a message that says what happened and what to do next."""
    message = cause_of(detail).message("dp.example:443", "the system's words")

    assert detail in CAUSES
    assert "(the system's words); " in message
    assert "{" not in message


def test_all_six_errors_have_a_cause():
    """No error of the specification is without a cause."""
    assert {cause.error for cause in CAUSES.values()} == set(ConnectionError)


@pytest.mark.parametrize(("status", "retryable"), [(401, False), (404, False), (301, False), (429, True), (503, True)])
def test_http_statuses(status, retryable):
    """A refused handshake is worth another try only where HTTP says that it may pass."""
    cause = cause_of(http_detail(status))

    assert (cause.error, cause.retryable) == (ConnectionError.SERVER_CONNECTION_FAILED, retryable)


def test_unknown_codes():
    """A code without words of its own is told by its number."""
    assert "close_4999" in cause_of(close_detail(4999)).message("dp.example:443")
    assert not cause_of("http_odd").retryable
