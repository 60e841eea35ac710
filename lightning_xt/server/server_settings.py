"""Limits and safety of a server."""

import hmac
from dataclasses import dataclass

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine for itself."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits and safety of a server.

    Args:
        hosts: names by which clients may call the server, in the Host header. Empty = any.
        api_key: key that clients must send. None = they need no key.
        max_tokens: most tokens of a completion.
        max_body_bytes: most bytes of a request's body.
        timeout: most seconds from a request to the end of its answer.
        rows: most sequences of a model that are decoded at once.
        max_waiting: most sequences of a model that wait for a row.
        body_timeout: most seconds until a request's body is there.
        drain_timeout: most seconds in which answers are finished after a signal to end.
    """

    hosts: tuple[str, ...] = LOOPBACK
    api_key: str | None = None
    max_tokens: int = 4096
    max_body_bytes: int = 2**20
    timeout: float = 600.0
    rows: int = 16
    max_waiting: int = 256
    body_timeout: float = 30.0
    drain_timeout: float = 30.0

    def accepts_key(self, given: str) -> bool:
        """Compare a key with the right one, in a time that does not depend on where they differ."""
        if self.api_key is None:
            return True
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.api_key.encode())
