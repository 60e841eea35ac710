"""`/v1/chat/completions`: answers to conversations."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from lightning_xt.data.chat.encoded_conversations import encode_spans
from lightning_xt.server.api_errors import ApiError, answer_refusal
from lightning_xt.server.bodies.chat_body import ChatBody
from lightning_xt.server.bodies.response_bodies import ChatAnswer
from lightning_xt.server.documented_errors import POST_ERRORS, describe_stream
from lightning_xt.server.jobs.completion_run import CompletionPlan, CompletionRun
from lightning_xt.server.jobs.job_group import JobGroup
from lightning_xt.server.jobs.log_prob_forms import list_chat_log_probs
from lightning_xt.server.jobs.request_handler import RequestHandler
from lightning_xt.server.served_model import ServedModel
from lightning_xt.server.server_context import Context, ServerContext, make_id

router = APIRouter(tags=["language models"])


@router.post(
    "/v1/chat/completions",
    response_model=ChatAnswer,
    responses={200: describe_stream("Each has a `delta` of one choice."), **POST_ERRORS},
)
async def chat(body: ChatBody, request: Request, context: Context) -> Response:
    """Answer a conversation, whose text the server's chat template makes."""
    model = context.models.choose(body.model).require("language_model")
    try:
        spans = model.template.split((message.role, message.text) for message in body.messages)
    except ValueError as error:
        raise ApiError(400, str(error), param="messages") from error
    try:
        # As in training, where no token reaches across the boundary of a response.
        prompt = await asyncio.to_thread(encode_spans, model.tokenizer, spans)
    except Exception as error:
        raise answer_refusal(error) from error
    # A last message of the assistant is continued.
    new_text = not (spans[-1].is_response and spans[-1].text)
    group = JobGroup(request, model, context)
    handler = ChatHandler(body, prompt, model, context, group, new_text=new_text)
    return await handler.answer(group, streamed=bool(body.stream))


class ChatHandler(RequestHandler):
    """Answer of a request to `/v1/chat/completions`."""

    def __init__(
        self,
        body: ChatBody,
        prompt: list[int],
        model: ServedModel,
        context: ServerContext,
        group: JobGroup,
        *,
        new_text: bool,
    ) -> None:
        plan = CompletionPlan(
            prompts=[prompt],
            limit=body.limit,
            stop=[*body.stops, *model.template.stop],
            alternatives=body.alternatives,
            new_text=new_text,
        )
        self._body, self._group = body, group
        self._run = CompletionRun(body, plan, model, context, group)
        self._head = {"id": make_id("chatcmpl"), "created": int(time.time()), "model": model.name}

    async def submit(self) -> int:
        return await self._run.submit()

    async def collect(self) -> dict[str, Any]:
        deltas = await self._run.collect()
        choices = [
            {
                "index": number,
                "message": {"role": "assistant", "content": delta.text, "refusal": None},
                "logprobs": list_chat_log_probs(delta.entries) if self._body.logprobs else None,
                "finish_reason": delta.reason,
            }
            for number, delta in enumerate(deltas)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._group.usage}

    async def stream(self) -> AsyncGenerator[dict[str, Any], None]:
        head = {**self._head, "object": "chat.completion.chunk"}
        usage = {"usage": None} if self._body.reports_usage else {}
        for number in range(self._run.num_choices):
            delta: dict[str, Any] = {"role": "assistant", "content": ""}
            choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}
            yield {**head, "choices": [choice], **usage}
        async for number, part in self._run.deltas():
            choice = {
                "index": number,
                "delta": {"content": part.text} if part.text else {},
                "logprobs": list_chat_log_probs(part.entries) if self._body.logprobs else None,
                "finish_reason": part.reason,
            }
            yield {**head, "choices": [choice], **usage}
        if self._body.reports_usage:
            yield {**head, "choices": [], "usage": self._group.usage}
