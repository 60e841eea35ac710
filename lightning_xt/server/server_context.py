"""Parts of a server that its routes share."""

import secrets
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.server.served_model import ModelTable
from lightning_xt.server.server_metrics import ServerMetrics
from lightning_xt.server.server_settings import ServerSettings


@dataclass
class ServerContext:
    """Parts of a server that its routes share.

    Args:
        engine: decodes for all requests.
        models: served models.
        settings: limits and safety.
        metrics: measured times and counts.
        draining: True once the server stops: new requests are refused.
        in_flight: requests that are being answered.
    """

    engine: Engine
    models: ModelTable
    settings: ServerSettings
    metrics: ServerMetrics
    draining: bool = False
    in_flight: int = 0


async def find_context(request: Request) -> ServerContext:
    """Return the context of a request's server; asynchronous, or it would run in another thread."""
    found: Any = request.app.state.context
    if not isinstance(found, ServerContext):
        raise TypeError("the application has no context")
    return found


Context = Annotated[ServerContext, Depends(find_context)]
"""Parameter of a route."""


def make_id(kind: str) -> str:
    """Return a new name of an answer."""
    return f"{kind}-{secrets.token_hex(12)}"
