"""Webhooks: what is posted to whom, when it is tried again, and what never leaks."""

import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from telemetry.alerts import webhook
from telemetry.alerts.webhook import Webhook, read_webhooks
from telemetry.errors import ServerError, UsageError
from tests.support.hooks import ENDLESS, HANGING, SILENCE, hook, status

pytestmark = pytest.mark.real
SECRETS = ("hush", "t0ken")


async def posted(url: str, *, timeout_s: float = 5.0, token: str | None = "t0ken") -> list[float]:
    """Post something; the waits between the tries."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    to = Webhook("pager", url, token)
    async with webhook.client(to) as client:
        await webhook.post(client, to, {"version": "4"}, sleep=sleep, timeout_s=timeout_s)
    return waits


async def test_a_post_carries_json_and_the_token() -> None:
    """A post is JSON with a bearer token, and is not repeated once it was taken."""
    async with hook() as posts:
        waits = await posted(posts.url)

    assert waits == []
    assert posts.bodies == [{"version": "4"}]
    assert posts.headers[0]["authorization"] == "Bearer t0ken"
    assert posts.headers[0]["content-type"] == "application/json"
    assert posts.headers[0]["user-agent"].startswith("dp-telemetry/")


async def test_what_may_pass_is_tried_again() -> None:
    """Refusals that may pass and lost connections are tried again, after waits that grow and obey `Retry-After`."""
    async with hook([status(503), SILENCE, status(429, "Retry-After: 20"), b"nonsense\r\n\r\n"]) as posts:
        waits = await posted(posts.url)

    assert len(posts.bodies) == webhook.TRIES == 5
    for wait, about in zip(waits, (1, 2, 20, 8), strict=True):
        assert 0.75 * about <= wait <= 1.25 * about


@pytest.mark.parametrize("code", [301, 400, 401, 404, 413])
async def test_what_will_not_pass_is_not_tried_again(code: int) -> None:
    """A refusal for good, and a redirect, end the post at once; nothing is followed."""
    async with hook() as elsewhere, hook([status(code, f"Location: {elsewhere.url}")]) as posts:
        with pytest.raises(ServerError, match=rf"webhook pager was not told: it answered {code} \(try 1 of 5\)"):
            await posted(posts.url)

    assert len(posts.bodies) == 1
    assert elsewhere.bodies == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(500, "Retry-After: 99999999999999999999"), "it answered 500"),
        (status(503, "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"), "it answered 503"),
        (HANGING, "no answer within 0.5 s"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n", "RemoteProtocolError"),
        (SILENCE, "RemoteProtocolError"),
    ],
)
async def test_hostile_answers_are_bounded(answer: bytes | None, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """However it answers, tries and waits are bounded, and neither error nor log holds address or token."""
    caplog.set_level(logging.DEBUG)
    async with hook([answer] * 9) as posts:
        with pytest.raises(ServerError, match=said) as refused:
            await posted(posts.url, timeout_s=0.5 if answer is HANGING else 5.0)

    assert len(posts.bodies) == webhook.TRIES
    told = " ".join([str(refused.value), repr(Webhook("pager", posts.url, "t0ken")), *caplog.messages])
    assert not any(secret in told for secret in SECRETS)


async def test_of_an_answer_only_the_status_is_read() -> None:
    """An answer without end is taken at its status."""
    async with hook([ENDLESS]) as posts:
        assert await posted(posts.url) == []


async def test_nobody_there() -> None:
    """A webhook that nobody serves is given up after the last try."""
    async with hook() as posts:
        pass

    with pytest.raises(ServerError, match="ConnectError"):
        await posted(posts.url)


async def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose certificate nobody vouches for is told nothing; a trusted one is."""
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async with hook(tls=tls) as posts:
        with pytest.raises(ServerError, match="ConnectError"):
            await posted(posts.url)
        assert posts.bodies == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        await posted(posts.url)

    assert len(posts.bodies) == 1


def read(**given: Any) -> Webhook:
    """One webhook of a file."""
    environment = {"URL": "https://pager.example/hush", "TOKEN": "t0ken"}
    (one,) = read_webhooks("rules.toml", {"webhooks": [given]}, environment)
    return one


def test_webhooks_are_read() -> None:
    """Addresses and tokens come from the file or the environment; the name is the host unless given."""
    assert read(url="https://pager.example/a") == Webhook("pager.example", "https://pager.example/a")
    assert read(name="pager", url_env="URL", token_env="TOKEN").token == "t0ken"
    assert read(url="http://127.0.0.1:9/a", token_env="TOKEN").url == "http://127.0.0.1:9/a"
    assert read_webhooks("rules.toml", {}, {}) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs either `url` or `url_env`"),
        ({"url": "https://a", "url_env": "URL"}, "needs either"),
        ({"url": 3}, "table of texts"),
        ({"url": "https://a", "token": "t0ken"}, "unknown key 'token'"),
        ({"url": "ftp://a/hush"}, "http:// or https://"),
        ({"url": "https://user:hush@a/"}, "no user or password"),
        ({"url": "https:///hush"}, "http:// or https://"),
        ({"url": "https://a:b/hush"}, "http:// or https://"),
        ({"url_env": "NONE"}, "the environment variable NONE is not set"),
        ({"url": "http://a/hush", "token_env": "TOKEN"}, "would travel unencrypted"),
    ],
)
def test_bad_webhooks_are_refused(given: dict[str, Any], message: str) -> None:
    """What cannot be used is refused before anything is served, and no message holds an address or a token."""
    with pytest.raises(UsageError, match=message) as refused:
        read(**given)

    assert not any(secret in str(refused.value) for secret in SECRETS)


@pytest.mark.parametrize("listed", [{"url": "https://a"}, ["https://a"], [{"url": "https://a"}] * 2])
def test_lists_that_are_none(listed: Any) -> None:
    """Webhooks are a list of tables, each of another name."""
    with pytest.raises(UsageError):
        read_webhooks("rules.toml", {"webhooks": listed}, {})
