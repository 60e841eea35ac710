"""Jobs of one request: they end with it, whenever that is."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from scripted_engine import make_language_model, make_server

from lightning_xt.inference.serving.events import Event, TokenEvent
from lightning_xt.server.api_errors import ApiError, ClientGoneError
from lightning_xt.server.jobs.job_group import JobGroup


class Submitted:
    """A job that an engine has taken, which sends the events that a test gives it."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.hold = threading.Event()
        self.started = threading.Event()
        self.hold.set()
        self.on_event: Callable[[Event], None] = lambda event: None

    def start(self, on_event: Callable[[Event], None]) -> Any:
        self.on_event = on_event
        self.started.set()
        self.hold.wait(10)
        return self

    def cancel(self) -> None:
        self.cancelled.set()


def run(act: Callable[[JobGroup, asyncio.Event], Awaitable[None]], **settings: Any) -> None:
    """Act with a group, and the event by which its client leaves."""

    async def begin() -> None:
        left = asyncio.Event()

        async def receive() -> dict[str, str]:
            await left.wait()
            return {"type": "http.disconnect"}

        request: Any = SimpleNamespace(receive=receive)
        group = JobGroup(request, make_language_model(), make_server(**settings).context)
        try:
            await asyncio.wait_for(act(group, left), 10)
        finally:
            group.close()

    asyncio.run(begin())


def test_a_job_whose_client_leaves_while_it_is_submitted_is_cancelled() -> None:
    job = Submitted()
    job.hold.clear()

    async def act(group: JobGroup, left: asyncio.Event) -> None:
        submitting = asyncio.create_task(group.submit(job.start))
        await asyncio.to_thread(job.started.wait, 5)
        left.set()
        await asyncio.sleep(0.05)
        job.hold.set()
        with pytest.raises(ClientGoneError):
            await submitting
        assert job.cancelled.is_set()
        # No further one is started.
        other = Submitted()
        with pytest.raises(ClientGoneError):
            await group.submit(other.start)
        assert not other.started.is_set()

    run(act)


def test_a_job_whose_request_ends_while_it_is_submitted_is_cancelled() -> None:
    job = Submitted()
    job.hold.clear()

    async def act(group: JobGroup, left: asyncio.Event) -> None:
        submitting = asyncio.create_task(group.submit(job.start))
        await asyncio.to_thread(job.started.wait, 5)
        submitting.cancel()
        group.close()
        job.hold.set()
        assert await asyncio.to_thread(job.cancelled.wait, 5)

    run(act)


def test_no_job_starts_after_the_time_of_a_request() -> None:
    job = Submitted()

    async def act(group: JobGroup, left: asyncio.Event) -> None:
        await asyncio.sleep(0.05)
        with pytest.raises(ApiError, match=r"the answer was not complete after 0\.01 seconds"):
            await group.submit(job.start)
        assert not job.started.is_set()

    run(act, timeout=0.01)


def test_an_answer_that_is_read_too_slowly_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_xt.server.jobs.job_group.MOST_PENDING", 3)
    job = Submitted()

    async def act(group: JobGroup, left: asyncio.Event) -> None:
        await group.submit(job.start)
        for token in range(5):
            job.on_event(TokenEvent(0, token, -0.5, "a"))
        events = group.events()
        assert (await anext(events))[1].token == 0
        for _ in range(4):
            job.on_event(TokenEvent(0, 9, -0.5, "a"))
        assert not job.cancelled.is_set(), "of 8 that wait, 5 came before anybody could read them"
        job.on_event(TokenEvent(0, 9, -0.5, "a"))
        assert job.cancelled.is_set()
        with pytest.raises(ApiError, match="the client reads the answer too slowly, so it was ended"):
            await anext(events)

    run(act)
