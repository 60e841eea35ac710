"""`/health` and `/metrics`: the state of a server."""

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from lightning_xt.server.bodies.response_bodies import HealthBody
from lightning_xt.server.documented_errors import GET_ERRORS, describe_errors
from lightning_xt.server.jobs.request_handler import make_json_response
from lightning_xt.server.server_context import Context
from lightning_xt.server.server_metrics import CONTENT_TYPE

router = APIRouter(tags=["operation"])


@router.get(
    "/health",
    response_model=HealthBody,
    responses={
        **describe_errors(400, 500),
        503: {"model": HealthBody, "description": "The server stops, or its engine has failed."},
    },
)
async def report_health(context: Context) -> Response:
    """Report whether the server takes requests."""
    state = "stopping" if context.draining else "ok" if context.engine.alive else "failed"
    return make_json_response({"status": state, "models": list(context.models)}, 200 if state == "ok" else 503)


@router.get("/metrics", response_class=PlainTextResponse, responses=GET_ERRORS)
async def report_metrics(context: Context) -> Response:
    """Report numbers of requests and tokens, the queue, and times, in Prometheus' format."""
    return Response(context.metrics.render(), headers={"Content-Type": CONTENT_TYPE})
