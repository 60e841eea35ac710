"""`/v1/completions`: completions of prompts."""

import time
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from lightning_xt.server.bodies.completion_body import CompletionBody
from lightning_xt.server.bodies.response_bodies import CompletionAnswer
from lightning_xt.server.documented_errors import POST_ERRORS, describe_stream
from lightning_xt.server.jobs.choice_text import TextDelta
from lightning_xt.server.jobs.completion_run import CompletionPlan, CompletionRun
from lightning_xt.server.jobs.job_group import JobGroup
from lightning_xt.server.jobs.log_prob_forms import list_completion_log_probs
from lightning_xt.server.jobs.request_handler import RequestHandler
from lightning_xt.server.served_model import ServedModel
from lightning_xt.server.server_context import Context, ServerContext, make_id

router = APIRouter(tags=["language models"])


@router.post(
    "/v1/completions",
    response_model=CompletionAnswer,
    responses={200: describe_stream("Each has new text of one choice."), **POST_ERRORS},
)
async def complete(body: CompletionBody, request: Request, context: Context) -> Response:
    """Complete prompts."""
    model = context.models.choose(body.model).require("language_model")
    group = JobGroup(request, model, context)
    return await CompletionHandler(body, model, context, group).answer(group, streamed=bool(body.stream))


class CompletionHandler(RequestHandler):
    """Answer of a request to `/v1/completions`."""

    def __init__(self, body: CompletionBody, model: ServedModel, context: ServerContext, group: JobGroup) -> None:
        plan = CompletionPlan(
            prompts=body.prompts,
            limit=body.max_tokens,
            stop=body.stops,
            alternatives=body.logprobs,
            echo=bool(body.echo),
        )
        self._body, self._group = body, group
        self._run = CompletionRun(body, plan, model, context, group)
        created = int(time.time())
        self._head = {
            "id": make_id("cmpl"),
            "object": "text_completion",
            "created": created,
            "model": model.name,
        }

    async def submit(self) -> int:
        return await self._run.submit()

    async def collect(self) -> dict[str, Any]:
        deltas = await self._run.collect()
        choices = [self._make_choice(number, delta) for number, delta in enumerate(deltas)]
        return {**self._head, "choices": choices, "usage": self._group.usage}

    async def stream(self) -> AsyncGenerator[dict[str, Any], None]:
        usage = {"usage": None} if self._body.reports_usage else {}
        async for number, delta in self._run.deltas():
            yield {**self._head, "choices": [self._make_choice(number, delta)], **usage}
        if self._body.reports_usage:
            yield {**self._head, "choices": [], "usage": self._group.usage}

    def _make_choice(self, number: int, delta: TextDelta) -> dict[str, Any]:
        log_probs = None if self._body.logprobs is None else list_completion_log_probs(delta.entries)
        return {"index": number, "text": delta.text, "logprobs": log_probs, "finish_reason": delta.reason}
