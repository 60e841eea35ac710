"""Headers of answers that keep browsers safe, and the count of answers."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightning_xt.server.api_errors import answer_fault
from lightning_xt.server.server_context import ServerContext

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class ResponseHeaders:
    """ASGI middleware that adds headers to every answer and counts it by route and status code.

    It is the outermost one, so it answers unexpected exceptions too.

    Args:
        app: application behind it.
        context: parts of the server.
        routes: paths that are counted by themselves; all others are counted together.
    """

    def __init__(self, app: ASGIApp, context: ServerContext, routes: tuple[str, ...]) -> None:
        self._app, self._context, self._routes = app, context, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with these headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self._routes else "other"

        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                self._context.metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if started:
                # The web server closes the connection, and writes to the log.
                raise
            await answer_fault(error).as_response()(scope, receive, send_with_headers)
