"""Safety of requests before a route sees them: host, key, type and size of the body, and the end of the server."""

import asyncio
import json
import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightning_xt.server.api_errors import RETRY_AFTER, STOPPING, ApiError
from lightning_xt.server.server_context import ServerContext
from lightning_xt.system.json_text import to_json

OPEN_PATHS = ("/", "/health", "/docs", "/openapi.json")
OPEN_FOLDERS = ("/playground/", "/docs/")
"""Paths that need no key: pages, which ask for it, and the state of the server."""
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half of a surrogate pair in JSON, or a whole one."""
OBSERVED = ("/health", "/metrics")
"""Paths that a server answers while it stops."""


class RequestGuard:
    """ASGI middleware that refuses requests before they reach a route.

    Args:
        app: application behind it.
        context: parts of the server.
    """

    def __init__(self, app: ASGIApp, context: ServerContext) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its whole body, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope["method"], scope["path"], Headers(scope=scope))
        except ApiError as error:
            await error.as_response()(scope, receive, send)
            return
        # A server that ends waits for bodies too.
        self._context.in_flight += 1
        try:
            await self._pass_on(scope, receive, send)
        finally:
            self._context.in_flight -= 1

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its whole body, or refuse the body."""
        try:
            body = await self._read_body(Headers(scope=scope), receive)
            if body is None:
                # The client has gone.
                return
            check_characters(body)
        except ApiError as error:
            await error.as_response()(scope, receive, send)
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            message: Message | None = next(messages, None)
            return await receive() if message is None else message

        await self._app(scope, replay, send)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        """Raise an ApiError for a request that no route may see."""
        settings = self._context.settings
        if settings.hosts and read_host(headers) not in settings.hosts:
            raise ApiError(
                400,
                f"this server answers requests to {', '.join(settings.hosts)} only, but the Host header has another "
                "name; start it with --host for others",
                code="invalid_host",
            )
        if self._context.draining and path not in OBSERVED:
            retry = {"Retry-After": str(RETRY_AFTER), "Connection": "close"}
            raise ApiError(503, STOPPING, code="stopping", headers=retry)
        if path not in OPEN_PATHS and not path.startswith(OPEN_FOLDERS) and not settings.accepts_key(read_key(headers)):
            given = "another key" if read_key(headers) else "no key"
            raise ApiError(
                401,
                f"this server needs its API key, but the request has {given}; send Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        # A page of another site can send any other type without asking first.
        if method == "POST" and kind != "application/json":
            raise ApiError(415, "send the body as JSON, with Content-Type: application/json")

    async def _read_body(self, headers: Mapping[str, str], receive: Receive) -> bytes | None:
        """Return the body; None if the client goes. ApiError if it is too large or comes too slowly."""
        most = self._context.settings.max_body_bytes
        too_large = ApiError(
            413, f"the body has more than {most} bytes; send less at once", headers={"Connection": "close"}
        )
        length = headers.get("content-length", "0")
        if length.isdecimal() and (len(length) > 18 or int(length) > most):
            raise too_large
        parts, size, more = [], 0, True
        try:
            async with asyncio.timeout(self._context.settings.body_timeout):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    more = message.get("more_body", False)
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
        except TimeoutError as error:
            seconds = f"{self._context.settings.body_timeout:g} seconds"
            raise ApiError(
                408, f"the body was not complete after {seconds}; send it faster", headers={"Connection": "close"}
            ) from error
        return b"".join(parts)


def check_characters(body: bytes) -> None:
    """Raise an ApiError for a body with half of a surrogate pair, which is not a character."""
    if not SURROGATE.search(body):
        return
    try:
        to_json(json.loads(body)).encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, "a text has half of a surrogate pair (\\ud800 to \\udfff), not a character") from error
    except (ValueError, RecursionError):
        # The route says what is wrong with it.
        return


def read_host(headers: Headers) -> str:
    """Return the name of the Host header, without its port."""
    host = headers.get("host", "").strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def read_key(headers: Headers) -> str:
    """Return the key of a request; empty if it has none."""
    kind, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""
