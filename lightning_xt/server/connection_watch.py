"""Connections that stand still: clients that do not send a request, or do not read their answer."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any

HEAD_SECONDS = 30.0
"""Seconds in which a client must send the head of a request."""
STALL_SECONDS = 60.0
"""Seconds in which a client must read a part of what was written for it."""


@dataclass
class Progress:
    """Last progress of a connection.

    Args:
        state: the state of the connection; another one is progress.
        since: the time at which this state was first seen.
    """

    state: tuple[str, int]
    since: float


class ConnectionWatch:
    """Watch of a server's connections, which closes those that stand still.

    The web server closes a connection only once its client has read everything, and waits for ever for the head of a
    first request.

    Args:
        connections: returns the connections of uvicorn's HTTP/1.1 protocol.
        clock: returns the time in seconds.
    """

    def __init__(self, connections: Callable[[], Iterable[Any]], clock: Callable[[], float] = monotonic) -> None:
        self._connections, self._clock = connections, clock
        self._seen: dict[Any, Progress] = {}

    def check(self) -> None:
        """Close the connections that have stood still too long."""
        now, seen = self._clock(), {}
        for connection in list(self._connections()):
            state = read_state(connection)
            last = self._seen.get(connection)
            kept = last if last is not None and last.state == state else Progress(state, now)
            seen[connection] = kept
            most = {"reading": HEAD_SECONDS, "writing": STALL_SECONDS}.get(state[0])
            if most is not None and now - kept.since > most:
                connection.transport.abort()
        self._seen = seen

    def abort_all(self) -> None:
        """Close all connections at once."""
        for connection in list(self._connections()):
            connection.transport.abort()


def read_state(connection: Any) -> tuple[str, int]:
    """Return the state of a connection: "writing" with the bytes that its client has not read, "reading", or "busy"."""
    if unread := connection.transport.get_write_buffer_size():
        return "writing", unread
    cycle = connection.cycle
    # After an answer, uvicorn's own timer waits for the next request.
    waits = cycle is None or (cycle.response_complete and connection.timeout_keep_alive_task is None)
    return ("reading" if waits else "busy"), 0
