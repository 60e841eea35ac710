"""Connections whose clients stand still: they are closed, and do not keep a server from ending."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from scripted_engine import make_server as make_client

from lightning_xt.server import server_process
from lightning_xt.server.connection_watch import ConnectionWatch
from lightning_xt.server.server_process import DrainingServer, bind_socket, listen, make_server


class Connection:
    """Stand-in of a connection of uvicorn."""

    def __init__(self, unread: int = 0, **fields: Any) -> None:
        self.unread, self.closed = unread, False
        self.transport = SimpleNamespace(get_write_buffer_size=lambda: self.unread, abort=self.close)
        self.cycle = fields.get("cycle")
        self.timeout_keep_alive_task = fields.get("timer")

    def close(self) -> None:
        self.closed = True


def pass_time(connection: Connection, seconds: int, each: Callable[[], None] = lambda: None) -> None:
    """Check a connection once a second."""
    now = [0.0]
    watch = ConnectionWatch(lambda: [connection], lambda: now[0])
    for _ in range(seconds):
        watch.check()
        now[0] += 1
        each()


def test_a_client_that_does_not_read_is_disconnected() -> None:
    connection = Connection(unread=1000, cycle=SimpleNamespace(response_complete=True))
    pass_time(connection, 60)
    assert not connection.closed
    pass_time(connection, 63)
    assert connection.closed


def test_a_client_that_reads_slowly_is_not_disconnected() -> None:
    connection = Connection(unread=1000)

    def read() -> None:
        connection.unread -= 1

    pass_time(connection, 200, read)
    assert not connection.closed


@pytest.mark.parametrize(
    ("cycle", "timer", "closed"),
    [
        (None, None, True),
        (SimpleNamespace(response_complete=True), None, True),
        # An own timer of uvicorn closes it.
        (SimpleNamespace(response_complete=True), object(), False),
        (SimpleNamespace(response_complete=False), None, False),
    ],
    ids=["first head", "next head", "kept alive", "answer"],
)
def test_a_client_that_sends_no_head_is_disconnected(cycle: Any, timer: Any, closed: bool) -> None:
    connection = Connection(cycle=cycle, timer=timer)
    pass_time(connection, 33)
    assert connection.closed == closed


def run_with_client(app: Any, act: Callable[[DrainingServer, socket.socket], Awaitable[None]], **settings: Any) -> None:
    """Serve an application to a client that has sent a request and reads nothing, and act; the server must end."""

    async def run() -> None:
        with bind_socket("127.0.0.1", 0) as listener, socket.socket() as client:
            listen(listener, "127.0.0.1", 0)
            started = asyncio.Event()
            server = make_server(app, make_client(**settings).context, started.set)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await asyncio.wait_for(started.wait(), 10)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(listener.getsockname())
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await act(server, client)
                await asyncio.wait_for(asyncio.shield(serving), 8)
            finally:
                serving.cancel()
                await asyncio.wait([serving])

    asyncio.run(run())


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def send_much(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a" * 20_000_000})


def test_a_client_that_does_not_read_does_not_keep_the_server_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "CLOSING_SECONDS", 0.3)

    async def end(server: DrainingServer, client: socket.socket) -> None:
        await wait_for(lambda: any(each.transport.get_write_buffer_size() for each in server.server_state.connections))
        server.handle_exit(signal.SIGTERM, None)

    run_with_client(send_much, end)


def test_answers_that_are_not_finished_in_time_are_cut_off(capfd: pytest.CaptureFixture[str]) -> None:
    left = []

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        contexts[0].in_flight += 1
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            contexts[0].in_flight -= 1
        left.append(True)

    contexts: list[Any] = []

    async def end(server: DrainingServer, client: socket.socket) -> None:
        contexts.append(server._context)
        await wait_for(lambda: server._context.in_flight == 1)
        server.handle_exit(signal.SIGTERM, None)

    run_with_client(wait, end, drain_timeout=0.2)
    assert left == [True]
    assert "lightning-xt: 1 answer not finished after 0.2 seconds, cut off\n" in capfd.readouterr().err
