"""Errors of the API in OpenAI's form: one sentence, without paths and tracebacks."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from lightning_xt.inference.serving.events import (
    EngineClosedError,
    EngineFailedError,
    LengthError,
    QueueFullError,
    StepError,
)
from lightning_xt.server.field_errors import explain_fields
from lightning_xt.system.messages import find_own_sentence, make_visible

logger = logging.getLogger(__name__)

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
"""Types of errors by status; other ones below 500 are `invalid_request_error`, the rest `server_error`."""
RETRY_AFTER = 1
"""Seconds after which a client that was refused for lack of room may try again."""
NO_RETRY = {"x-should-retry": "false"}
"""Header by which OpenAI's clients do not repeat a request that would fail again."""
LONGEST_PATH = 100
"""Most characters of a path that a sentence quotes."""
STOPPING = "the server is stopping and takes no new requests; try again when it runs again"

FAILED = "the server's engine has failed and answers no more requests; its log has the reason, and it must be restarted"


class ApiError(Exception):
    """Refusal of a request.

    Args:
        status: status code of HTTP.
        message: one sentence.
        param: field of the request that is at fault. None = no single one.
        code: short name of the error for programs. None = there is none.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        # A text of the client may hold control characters and lone surrogates.
        message = make_visible(" ".join(str(self).split())).encode("utf-8", "backslashreplace").decode()
        param = None if self.param is None else self.param.encode("utf-8", "backslashreplace").decode()
        return {"error": {"message": message, "type": kind, "param": param, "code": self.code}}

    def as_response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.body, self.status, self.headers)


class ClientGoneError(Exception):
    """Raised for a request whose client has closed the connection."""


def answer_refusal(error: Exception) -> ApiError:
    """Return the refusal for an exception by which the engine does not take a job."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        message = str(error) or "too many requests wait already; try again later"
        return ApiError(429, message, code="queue_full", headers={"Retry-After": str(RETRY_AFTER)})
    if isinstance(error, EngineClosedError):
        return _answer_end(error)
    if isinstance(error, LengthError):
        return ApiError(400, str(error), param=error.field, code="context_length_exceeded")
    if sentence := find_own_sentence(error):
        return ApiError(400, sentence)
    return answer_fault(error)


def answer_failure(error: Exception) -> ApiError:
    """Return the answer for an exception that ended a job after the engine took it."""
    if isinstance(error, EngineClosedError):
        return _answer_end(error)
    return ApiError(500, str(error), headers=NO_RETRY) if isinstance(error, StepError) else answer_fault(error)


def _answer_end(error: EngineClosedError) -> ApiError:
    """Return the answer for the end of the engine, wanted or not."""
    if isinstance(error, EngineFailedError):
        return ApiError(500, FAILED, code="engine_failed", headers=NO_RETRY)
    return ApiError(503, STOPPING, code="stopping", headers={"Retry-After": str(RETRY_AFTER)})


def answer_fault(error: Exception) -> ApiError:
    """Write an unexpected exception to the log; return the answer, which does not quote it."""
    logger.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed at this request; its log has the reason", headers=NO_RETRY)


def add_error_handlers(app: FastAPI) -> None:
    """Have an application answer its exceptions in OpenAI's form."""

    async def answer_api_error(request: Request, error: Exception) -> JSONResponse:
        return error.as_response() if isinstance(error, ApiError) else answer_fault(error).as_response()

    async def answer_invalid_fields(request: Request, error: Exception) -> JSONResponse:
        message, param = explain_fields(error.errors() if isinstance(error, RequestValidationError) else [])
        return ApiError(400, message, param=param).as_response()

    async def answer_http_error(request: Request, error: Exception) -> JSONResponse:
        status = error.status_code if isinstance(error, HTTPException) else 500
        path = request.url.path
        where = f"{request.method[:LONGEST_PATH]} {path if len(path) <= LONGEST_PATH else path[:LONGEST_PATH] + '...'}"
        messages = {
            400: "the body is not JSON that can be read: it may be nested too deeply, or not be UTF-8",
            404: f"there is no {where}; GET /docs lists the routes",
            405: f"there is no {where}, but the path has another method; GET /docs lists the routes",
        }
        headers = dict(getattr(error, "headers", None) or {})
        return ApiError(status, messages.get(status, "the request cannot be answered"), headers=headers).as_response()

    async def answer_disconnected(request: Request, error: Exception) -> JSONResponse:
        # Nobody reads it.
        return ApiError(499, "the client has closed the connection").as_response()

    app.add_exception_handler(ApiError, answer_api_error)
    app.add_exception_handler(RequestValidationError, answer_invalid_fields)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(ClientGoneError, answer_disconnected)
