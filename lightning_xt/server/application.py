"""FastAPI application of a server."""

from typing import Any

from fastapi import FastAPI

import lightning_xt
from lightning_xt.server.api_errors import add_error_handlers
from lightning_xt.server.guards.request_guard import RequestGuard
from lightning_xt.server.guards.response_headers import ResponseHeaders
from lightning_xt.server.routes import (
    chat_routes,
    completion_routes,
    model_routes,
    operation_routes,
    page_routes,
    translation_routes,
)
from lightning_xt.server.server_context import ServerContext

TITLE = "lightning-xt API"
DESCRIPTION = "Completions, conversations and translations by models that were trained with lightning-xt."


class ServerApp(FastAPI):
    """FastAPI application whose schema has the errors that the server really answers."""

    def openapi(self) -> dict[str, Any]:
        """Return the schema of the API."""
        if self.openapi_schema is None:
            schema = super().openapi()
            for methods in schema["paths"].values():
                for route in methods.values():
                    # Invalid fields are answered with 400.
                    route["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                schema.get("components", {}).get("schemas", {}).pop(name, None)
            if self.state.context.settings.api_key is not None:
                schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                schema["security"] = [{"key": []}]
            self.openapi_schema = schema
        return self.openapi_schema


def build_app(context: ServerContext) -> FastAPI:
    """Build the application of a server, whose engine is started already."""
    app = ServerApp(
        title=TITLE,
        description=DESCRIPTION,
        version=lightning_xt.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    for module in (completion_routes, chat_routes, translation_routes, model_routes, operation_routes):
        app.include_router(module.router)
    app.include_router(page_routes.make_page_router())
    add_error_handlers(app)
    paths = tuple(path for path in app.openapi()["paths"] if "{" not in path)
    # The last one is the outermost.
    app.add_middleware(RequestGuard, context=context)
    app.add_middleware(ResponseHeaders, context=context, routes=(*paths, "/", "/docs"))
    return app
