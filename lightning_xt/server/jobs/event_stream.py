"""Answers as server-sent events."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lightning_xt.server.api_errors import ApiError, ClientGoneError, answer_fault
from lightning_xt.server.jobs.job_group import JobGroup
from lightning_xt.system.json_text import to_json

logger = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds in which a slow client may still take the end of an answer whose time is over."""
SILENCE = 15.0
"""Seconds without events after which a comment is sent: proxies close connections that are silent."""
WAITING = b": waiting\n\n"
DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """Answer of server-sent events, which ends with `[DONE]` or with an error; it closes its jobs.

    Args:
        group: the jobs of the request.
        chunks: the events' data.
        headers: further headers.
    """

    media_type = "text/event-stream"

    def __init__(
        self, group: JobGroup, chunks: AsyncGenerator[Mapping[str, Any], None], headers: Mapping[str, str]
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers})
        del self.headers["content-length"]
        self._group, self._chunks = group, chunks
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            async with asyncio.timeout_at(self._group.deadline + GRACE):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                comments = asyncio.create_task(self._send_comments(send))
                try:
                    await self._send_events(send)
                finally:
                    comments.cancel()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (ClientGoneError, TimeoutError):
            # Nobody reads the rest.
            logger.debug("a client has gone before the end of its answer")
        finally:
            self._group.close()

    async def _send_events(self, send: Send) -> None:
        try:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    self._sent_at = self._loop.time()
                    await send({"type": "http.response.body", "body": encode_event(chunk), "more_body": True})
            end = DONE
        except ApiError as error:
            end = encode_event(error.body)
        except ClientGoneError:
            raise
        except Exception as error:
            end = encode_event(answer_fault(error).body)
        await send({"type": "http.response.body", "body": end, "more_body": True})

    async def _send_comments(self, send: Send) -> None:
        """Send a comment, which clients ignore, whenever there was no event for a while."""
        while True:
            rest = self._sent_at + SILENCE - self._loop.time()
            if rest > 0:
                await asyncio.sleep(rest)
                continue
            self._sent_at = self._loop.time()
            await send({"type": "http.response.body", "body": WAITING, "more_body": True})


def encode_event(data: Mapping[str, Any]) -> bytes:
    """Return one event; ASCII, because some clients take other line separators of Unicode for ends of lines."""
    return b"data: " + to_json(data, ascii_only=True).encode("ascii") + b"\n\n"
