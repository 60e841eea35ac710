"""Answer of a request, whole or streamed."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.responses import Response

from lightning_xt.server.api_errors import ApiError, ClientGoneError, answer_refusal
from lightning_xt.server.jobs.event_stream import EventStream
from lightning_xt.server.jobs.job_group import JobGroup
from lightning_xt.system.json_text import to_json

SEED_HEADER = "X-Seed"
"""Header with the seed of an answer, given or drawn."""


class RequestHandler(ABC):
    """Base class of what a route does with one request."""

    @abstractmethod
    async def submit(self) -> int:
        """Submit the jobs, and return the seed of their random numbers; ApiError if the request is refused."""

    @abstractmethod
    async def collect(self) -> dict[str, Any]:
        """Return the whole answer."""

    @abstractmethod
    def stream(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the answer in chunks."""

    async def _submit(self) -> int:
        """Submit the jobs, and return their seed. What a tokenizer refuses becomes an ApiError too."""
        try:
            return await self.submit()
        except (ApiError, ClientGoneError):
            raise
        except Exception as error:
            raise answer_refusal(error) from error

    async def answer(self, group: JobGroup, *, streamed: bool) -> Response:
        """Return the answer, whose jobs end with it."""
        kept = False
        try:
            headers = {SEED_HEADER: str(await self._submit())}
            if streamed:
                kept = True
                return EventStream(group, self.stream(), headers)
            return make_json_response(await self.collect(), headers=headers)
        finally:
            if not kept:
                group.close()


def make_json_response(data: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer of plain values."""
    content = to_json(data, ascii_only=True).encode("ascii")
    return Response(content, status, headers, media_type="application/json")
