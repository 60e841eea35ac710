"""Run of a server: its socket, its signals and its end."""

import asyncio
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from lightning_xt.server.connection_watch import ConnectionWatch
from lightning_xt.server.server_context import ServerContext

CLOSING_SECONDS = 5.0
"""Seconds in which clients must read the rest of their answers at the end of the server."""
FORWARDED = 0.1
"""Seconds in which a second signal is the first one again: launchers forward what their group gets."""


def bind_socket(host: str, port: int) -> socket.socket:
    """Take a port, without accepting connections yet; ValueError if it is in use, or not available."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        # A name with an empty or a long part cannot be encoded.
        reason = getattr(error, "strerror", None) or "it is not a name of a machine"
        raise ValueError(
            f"--host {host} is not a name or an address of this machine ({reason}); give 127.0.0.1 for this machine "
            "only, or 0.0.0.0 for every network"
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        # A port of a server that has just ended.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ValueError(explain_address(host, port, error)) from error
    return listener


def listen(listener: socket.socket, host: str, port: int) -> None:
    """Begin to accept connections; ValueError if another process was faster."""
    try:
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        listener.close()
        raise ValueError(explain_address(host, port, error)) from error


def explain_address(host: str, port: int, error: OSError) -> str:
    """Return a sentence about an address that cannot be taken."""
    if error.errno == errno.EADDRINUSE:
        return f"--port {port} is in use on {host} already; stop the other server, or give another port"
    if error.errno == errno.EACCES:
        return f"--port {port} is for the system's own servers; give one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host} is not an address of this machine; give 127.0.0.1 or 0.0.0.0"
    return f"--host {host} and --port {port} cannot be taken ({error.strerror}); give others"


class DrainingServer(uvicorn.Server):
    """Server that finishes what it is writing before it ends.

    The first SIGTERM or SIGINT refuses new requests; the server ends once all others are answered, or the time for it
    is over. A second one ends the process at once.

    Args:
        config: configuration of uvicorn.
        context: parts of the server.
        on_start: called once connections are accepted.
    """

    def __init__(self, config: uvicorn.Config, context: ServerContext, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._context, self._on_start = context, on_start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped_at: float | None = None
        self._watch = ConnectionWatch(lambda: self.server_state.connections)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        self._on_start()

    async def on_tick(self, counter: int) -> bool:
        """Close connections that stand still, once a second; return True once the server ends."""
        if counter % 10 == 0:
            self._watch.check()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections; those whose clients do not read are closed a little later."""
        asyncio.get_running_loop().call_later(CLOSING_SECONDS, self._watch.abort_all)
        await super().shutdown(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if self._stopped_at is not None:
            if now - self._stopped_at > FORWARDED:
                os.write(2, b"lightning-xt: ended at once; answers were cut off\n")
                os._exit(128 + sig)
            return
        self._stopped_at = now
        self._context.draining = True
        if self._context.in_flight:
            name = signal.Signals(sig).name
            text = f"lightning-xt: {name}: finishing {self._count_answers()}; send it again to end at once\n"
            os.write(2, text.encode())
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._begin_drain)

    def _count_answers(self) -> str:
        count = self._context.in_flight
        return f"{count} answer{'' if count == 1 else 's'}"

    def _begin_drain(self) -> None:
        self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        end = time.monotonic() + self._context.settings.drain_timeout
        while self._context.in_flight and time.monotonic() < end:
            await asyncio.sleep(0.02)
        if self._context.in_flight:
            seconds = f"{self._context.settings.drain_timeout:g} seconds"
            text = f"lightning-xt: {self._count_answers()} not finished after {seconds}, cut off\n"
            os.write(2, text.encode())
            self._watch.abort_all()
        self.should_exit = True


def run_server(app: FastAPI, context: ServerContext, listener: socket.socket, on_start: Callable[[], None]) -> None:
    """Answer requests until a signal ends the server."""
    make_server(app, context, on_start).run(sockets=[listener])
    sys.stdout.flush()


def make_server(app: ASGIApp, context: ServerContext, on_start: Callable[[], None]) -> DrainingServer:
    """Return the server of an application."""
    config = uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=round(2 * CLOSING_SECONDS),
        h11_max_incomplete_event_size=2**16,
    )
    return DrainingServer(config, context, on_start)
