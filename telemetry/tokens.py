"""The tokens that open a door. Compared so that time tells nothing of them."""

import hashlib
import hmac
from collections.abc import Iterable


class Tokens:
    """What callers may show; false where there is none, and the door stands open."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = tuple(map(_digest, tokens))

    def __bool__(self) -> bool:
        return bool(self._digests)

    def know(self, shown: str) -> bool:
        """Whether it is one of them."""
        digest = _digest(shown)
        return any([hmac.compare_digest(digest, known) for known in self._digests])  # all of them: time tells nothing


def _digest(token: str) -> bytes:
    """Equal lengths, and none is kept as it is."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
