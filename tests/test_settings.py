"""What is read from addresses and the environment."""

import pytest

from telemetry import settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LocalHost"])
def test_loopback(host: str) -> None:
    """Only this machine reaches these."""
    assert settings.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "", "127.1"])
def test_elsewhere(host: str) -> None:
    """Others may reach these, or nobody knows."""
    assert not settings.is_loopback(host)
