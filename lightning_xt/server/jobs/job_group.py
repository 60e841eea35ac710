"""Jobs of one request: from the engine's thread to the event loop."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable
from time import perf_counter

from starlette.requests import Request

from lightning_xt.inference.serving.events import Candidates, ErrorEvent, Event, JobEnd, Scores, TokenEvent
from lightning_xt.inference.serving.job import Job
from lightning_xt.server.api_errors import NO_RETRY, ApiError, ClientGoneError, answer_failure, answer_refusal
from lightning_xt.server.served_model import ServedModel
from lightning_xt.server.server_context import ServerContext

MOST_PENDING = 10_000
"""Most events that wait until the client has read earlier ones; one with alternatives has some kilobytes."""
Start = Callable[[Callable[[Event], None]], Job]
"""Called with the receiver of a job's events; submits the job."""


class JobGroup:
    """Jobs of one request, which end with it: when it is answered, its client has gone, or its time is over.

    Args:
        request: the request, whose connection is watched.
        model: model of the request.
        context: parts of the server.
    """

    def __init__(self, request: Request, model: ServedModel, context: ServerContext) -> None:
        self._loop, self._timeout = asyncio.get_running_loop(), context.settings.timeout
        self.deadline = self._loop.time() + self._timeout
        self._pending: deque[tuple[int, Event]] = deque()
        self._most_pending: int | None = None
        """Most events that may wait. None = nobody reads them yet."""
        self._ready = asyncio.Event()
        self._waking = self._gone = self._overrun = False
        self._over = False
        """True once no job may run any more."""
        self._jobs: list[Job] = []
        self._unfinished: set[int] = set()
        self._model, self._metrics = model.name, context.metrics
        self._began = perf_counter()
        self._token_times: dict[tuple[int, int], float] = {}
        self._watcher = asyncio.create_task(self._watch(request))
        self.prompt_tokens = self.generated_tokens = 0

    async def submit(self, start: Start) -> int:
        """Submit a job and return its number; ApiError if the engine refuses it, or the time is over.

        Raises:
            ClientGoneError: the client has gone.
        """
        self._check()
        number = len(self._jobs)
        try:
            # Encodes text, which may take time.
            await asyncio.to_thread(self._start, start, number)
        except Exception as error:
            raise answer_refusal(error) from error
        self._unfinished.add(number)
        self._check()
        return number

    def _start(self, start: Start, number: int) -> None:
        """Submit a job, in a thread that continues if its request ends meanwhile."""
        job = start(lambda event: self._receive(number, event))
        self._jobs.append(job)
        if self._over:
            job.cancel()

    def _check(self) -> None:
        """Raise the error of a request that has ended already."""
        self._check_client()
        if self._loop.time() > self.deadline:
            raise self._make_timeout()

    def _make_timeout(self) -> ApiError:
        message = f"the answer was not complete after {self._timeout:g} seconds; ask for fewer tokens"
        return ApiError(503, message, code="timeout", headers=NO_RETRY)

    def _receive(self, number: int, event: Event) -> None:
        """Take an event on the engine's thread; the loop is woken once for all that wait."""
        if self._most_pending is not None and len(self._pending) >= self._most_pending:
            self._overrun = True
            self.cancel()
            return
        self._pending.append((number, event))
        if not self._waking:
            self._waking = True
            # The loop may have ended.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._waking = False
        self._ready.set()

    async def _watch(self, request: Request) -> None:
        """Wait until the client closes the connection."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self.cancel()
        self._ready.set()

    async def events(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Yield the events of all jobs, each with the number of its job.

        Raises:
            ApiError: a job has failed, the time is over, or the client reads too slowly.
            ClientGoneError: the client has gone.
        """
        # Those that came before anybody could read them are not the client's fault.
        self._most_pending = MOST_PENDING + len(self._pending)
        while self._unfinished:
            await self._wait()
            while self._pending:
                self._check_client()
                number, event = self._pending.popleft()
                if isinstance(event, ErrorEvent):
                    raise answer_failure(event.error)
                if isinstance(event, JobEnd):
                    self._unfinished.discard(number)
                    self.prompt_tokens += event.prompt_tokens
                    self.generated_tokens += event.generated_tokens
                else:
                    self._record_time(number, event)
                    yield number, event
        self._most_pending = None

    def _check_client(self) -> None:
        """Raise an error if the client has gone, or reads too slowly."""
        if self._gone:
            raise ClientGoneError
        if self._overrun:
            raise ApiError(503, "the client reads the answer too slowly, so it was ended", code="slow_client")

    async def _wait(self) -> None:
        self._check_client()
        try:
            async with asyncio.timeout_at(self.deadline):
                await self._ready.wait()
        except TimeoutError as error:
            raise self._make_timeout() from error
        self._ready.clear()
        self._check_client()

    def _record_time(self, number: int, event: Event) -> None:
        if isinstance(event, TokenEvent | Candidates | Scores):
            now = perf_counter()
            if not self._token_times:
                self._metrics.first_token.labels(self._model).observe(now - self._began)
            place = number, event.sequence if isinstance(event, TokenEvent) else 0
            if isinstance(event, TokenEvent) and place in self._token_times:
                self._metrics.next_token.labels(self._model).observe(now - self._token_times[place])
            self._token_times[place] = now

    @property
    def usage(self) -> dict[str, int]:
        """Numbers of tokens, as the API reports them."""
        total = self.prompt_tokens + self.generated_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.generated_tokens,
            "total_tokens": total,
        }

    def cancel(self) -> None:
        """Cancel the jobs that still run, and those that are being submitted."""
        self._over = True
        for job in list(self._jobs):
            job.cancel()

    def close(self) -> None:
        """End the group, whatever its jobs do."""
        self.cancel()
        self._watcher.cancel()
