"""Post alerts to webhooks, in the form of Prometheus's Alertmanager: whatever takes its posts takes these.

A webhook stands in the file of rules:

    [[webhooks]]
    name = "pager"                   # in logs and figures; the host unless given
    url = "https://pager.example/hooks/telemetry"
    token_env = "PAGER_TOKEN"        # the environment variable that holds the bearer token

An address that is itself a secret stands in an environment variable, too: `url_env` in place of `url`.
Certificates are verified, redirects are not followed, and of an answer nothing is read but its status.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from telemetry import __version__, settings
from telemetry.errors import ServerError, UsageError

TRIES: Final = 5
FIRST_WAIT_S: Final = 1.0
"""Between the first two tries; it doubles from one to the next, and is spread so that senders do not meet."""
LONGEST_WAIT_S: Final = 30.0
"""Whatever `Retry-After` asks for."""
TIMEOUT_S: Final = 10.0
"""For one try, from resolving the name to the status of the answer."""
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_KEYS: Final = frozenset({"name", "url", "url_env", "token_env"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to post. Only its name is ever shown."""

    name: str
    url: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def read_webhooks(path: object, given: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[Webhook, ...]:
    """The webhooks of a file of rules.

    Args:
        path: the file, for messages.
        given: what the file holds.

    Raises:
        UsageError: a webhook cannot be understood, lacks its variable, or would send its token in the clear.
    """
    listed = given.get("webhooks", [])
    if not isinstance(listed, list):
        raise UsageError(f"{path}: webhooks are written as [[webhooks]]")
    webhooks = [_webhook(f"{path}, webhook {number}", one, environment) for number, one in enumerate(listed, 1)]
    names = [webhook.name for webhook in webhooks]
    if len(set(names)) < len(names):
        raise UsageError(f"{path} has two webhooks of the same name; give each its `name`")
    return tuple(webhooks)


def _webhook(where: str, given: Any, environment: Mapping[str, str]) -> Webhook:
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise UsageError(f"{where} should be a table of texts")
    if unknown := sorted(given.keys() - _KEYS):
        raise UsageError(f"{where} has an unknown key {unknown[0]!r}; there are {', '.join(sorted(_KEYS))}")
    if ("url" in given) == ("url_env" in given):
        raise UsageError(f"{where} needs either `url` or `url_env`")
    for key in ("url_env", "token_env"):
        if key in given and not environment.get(given[key]):
            raise UsageError(f"{where}: the environment variable {given[key]} is not set")
    address = given["url"] if "url" in given else environment[given["url_env"]].strip()
    token = environment[given["token_env"]].strip() if "token_env" in given else None
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        # The address itself is not shown: it may be a secret.
        raise UsageError(f"{where}: the address should be http:// or https://, and hold no user or password")
    if token and url.scheme == "http" and not settings.is_loopback(url.host):
        raise UsageError(f"{where}: its token would travel unencrypted; use https://")
    return Webhook(given.get("name", url.host), str(url), token)


def client(webhook: Webhook) -> httpx.AsyncClient:
    """What posts to a webhook: it verifies certificates, and knows the system's proxies for addresses elsewhere."""
    headers = {"User-Agent": f"dp-telemetry/{__version__}"}
    if webhook.token:
        headers["Authorization"] = f"Bearer {webhook.token}"
    here = settings.is_loopback(httpx.URL(webhook.url).host)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # below that it logs addresses
    verify = ssl.create_default_context()
    return httpx.AsyncClient(headers=headers, verify=verify, timeout=TIMEOUT_S, trust_env=not here)


async def post(
    client: httpx.AsyncClient,
    webhook: Webhook,
    body: Mapping[str, Any],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Post until it is taken, a few times.

    Raises:
        ServerError: it was refused, or did not answer well in any of the tries; names the webhook, not its address.
    """
    for number in range(1, TRIES + 1):
        problem, wait_s = await _try(client, webhook, body, timeout_s)
        if problem is None:
            return
        if wait_s is None or number == TRIES:
            raise ServerError(f"webhook {webhook.name} was not told: {problem} (try {number} of {TRIES})")
        wait_s = min(LONGEST_WAIT_S, max(wait_s, FIRST_WAIT_S * 2 ** (number - 1)))
        _log.info("webhook %s: %s; again in about %.0f s", webhook.name, problem, wait_s)
        await sleep(wait_s * random.uniform(0.75, 1.25))
    raise AssertionError("the last try returns or raises")


async def _try(
    client: httpx.AsyncClient, webhook: Webhook, body: Mapping[str, Any], timeout_s: float
) -> tuple[str | None, float | None]:
    """One try: what went wrong, if anything, and the least seconds to wait; None means that waiting is no use."""
    try:
        async with asyncio.timeout(timeout_s), client.stream("POST", webhook.url, json=body) as answer:
            status, asked = answer.status_code, answer.headers.get("Retry-After", "")
    except TimeoutError:
        return f"no answer within {timeout_s:g} s", 0.0
    except httpx.HTTPError as error:
        return type(error).__name__, 0.0  # its text may hold the address
    if 200 <= status < 300:
        return None, None
    if status not in _AGAIN:
        return f"it answered {status}", None
    return f"it answered {status}", float(asked[:9]) if asked.isascii() and asked.isdigit() else 0.0
