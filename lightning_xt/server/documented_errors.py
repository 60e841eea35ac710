"""Descriptions of the errors of routes, for the schema of the API."""

from typing import Any

from lightning_xt.server.bodies.response_bodies import ErrorBody
from lightning_xt.server.jobs.request_handler import SEED_HEADER

TEXTS = {
    400: "A field is unknown or invalid, the model cannot serve the request, or the Host header has another name.",
    401: "The API key is missing or wrong.",
    404: "There is no such model or route.",
    408: "The body was not complete in time.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too many requests wait already; Retry-After says when to try again.",
    500: "The server failed.",
    503: "The server stops, or the time for the answer is over.",
}


def describe_errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of these status codes."""
    return {code: {"model": ErrorBody, "description": TEXTS[code]} for code in codes}


POST_ERRORS = describe_errors(400, 401, 404, 408, 413, 415, 429, 500, 503)
"""Errors of routes that generate."""
GET_ERRORS = describe_errors(400, 401, 500)
"""Errors of routes that report, while the server stops too."""


def describe_stream(text: str) -> dict[str, Any]:
    """Return the description of an answer that may be streamed."""
    return {
        "description": f"The answer. With `stream`, server-sent events: `data:` with a JSON object each, the last one "
        f"`[DONE]`. {text}",
        "headers": {
            SEED_HEADER: {"description": "The seed of the request, given or drawn.", "schema": {"type": "integer"}}
        },
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
