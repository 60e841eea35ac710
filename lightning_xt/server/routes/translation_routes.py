"""`/v1/translations`: translations of sources."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from lightning_xt.inference.serving.events import Alignment, Candidates, SequenceEnd, TokenEvent
from lightning_xt.inference.text_generator import Completion
from lightning_xt.inference.translation import Translator, limit_target
from lightning_xt.server.api_errors import ApiError
from lightning_xt.server.bodies.response_bodies import TranslationAnswer
from lightning_xt.server.bodies.translation_body import TranslationBody
from lightning_xt.server.documented_errors import POST_ERRORS, describe_stream
from lightning_xt.server.jobs.generation_limits import (
    build_translation_options,
    check_alignment_size,
    check_sequences,
    draw_seed,
)
from lightning_xt.server.jobs.job_group import JobGroup
from lightning_xt.server.jobs.log_prob_forms import clamp_log_prob
from lightning_xt.server.jobs.request_handler import RequestHandler
from lightning_xt.server.served_model import ServedModel
from lightning_xt.server.server_context import Context, ServerContext

router = APIRouter(tags=["encoder-decoders"])

DIGITS = 6
"""Decimals of the weights of an alignment."""


@router.post(
    "/v1/translations",
    response_model=TranslationAnswer,
    responses={
        200: describe_stream("Each has new `text` of one source, or its `candidates`; the last one has the `usage`."),
        **POST_ERRORS,
    },
)
async def translate(body: TranslationBody, request: Request, context: Context) -> Response:
    """Translate sources."""
    model = context.models.choose(body.model).require("encoder_decoder")
    group = JobGroup(request, model, context)
    return await TranslationHandler(body, model, context, group).answer(group, streamed=bool(body.stream))


class TranslationHandler(RequestHandler):
    """Answer of a request to `/v1/translations`."""

    def __init__(self, body: TranslationBody, model: ServedModel, context: ServerContext, group: JobGroup) -> None:
        self._body, self._model, self._context, self._group = body, model, context, group
        self._jobs: dict[int, int] = {}
        """Numbers of sources by numbers of jobs."""

    async def submit(self) -> int:
        body, model, engine = self._body, self._model, self._context.engine
        await asyncio.to_thread(self._check_sources)
        settings = self._context.settings
        check_sequences(len(body.sources), 1, settings.rows + settings.max_waiting)
        seed = draw_seed() if body.seed is None else body.seed
        seen: Counter[str] = Counter()
        for number, source in enumerate(body.sources):
            options = build_translation_options(body, most=self._context.settings.max_tokens, seed=seed)
            repeat, seen[source] = seen[source], seen[source] + 1
            submit = partial(engine.translate, model.name, source, options)
            start = partial(submit, alignment=bool(body.alignment), repeat=repeat)
            self._jobs[await self._group.submit(start)] = number
        return seed

    def _check_sources(self) -> None:
        """Raise an ApiError for a source that is empty, or of which a part would be ignored."""
        for number, source in enumerate(self._body.sources, 1):
            name = "source" if isinstance(self._body.source, str) else f"source {number}"
            if not source.strip():
                raise ApiError(400, f"{name} is empty; give a text to translate", param="source")
            if problem := self._model.generator.find_problem(source):
                raise ApiError(400, f"{name} is too long: {problem}", param="source", code="context_length_exceeded")
        if self._body.alignment:
            check_alignment_size(sum(map(self._count_weights, self._body.sources)))

    def _count_weights(self, source: str) -> int:
        """Return the most weights of the alignments of a source."""
        translator, body, most = self._model.generator, self._body, self._model.max_length
        if not isinstance(translator, Translator):
            return 0
        tokens = len(translator.tokenize_source(source)[0])
        limit = limit_target(tokens) if body.max_tokens is None else body.max_tokens
        return (body.n_best or 1) * tokens * (limit if most is None else min(limit, most))

    async def collect(self) -> dict[str, Any]:
        found: dict[int, dict[str, Any]] = {}
        async with aclosing(self._parts()) as parts:
            async for part in parts:
                if "candidates" in part:
                    found[part["index"]] = part
        ordered = [found[number] for number in sorted(found)]
        return {
            "object": "translations",
            "model": self._model.name,
            "translations": ordered,
            "usage": self._group.usage,
        }

    async def stream(self) -> AsyncGenerator[dict[str, Any], None]:
        head = {"object": "translations.chunk", "model": self._model.name}
        async with aclosing(self._parts()) as parts:
            async for part in parts:
                yield {**head, "translations": [part]}
        yield {**head, "translations": [], "usage": self._group.usage}

    async def _parts(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield new text of sources that are sampled, and the candidates of each source once they are certain."""
        written: dict[int, list[str]] = {number: [] for number in self._jobs.values()}
        scores = dict.fromkeys(written, 0.0)
        async with aclosing(self._group.events()) as events:
            async for job, event in events:
                number = self._jobs[job]
                if isinstance(event, TokenEvent | SequenceEnd):
                    written[number].append(event.text)
                    if event.text:
                        yield {"index": number, "text": event.text}
                if isinstance(event, TokenEvent):
                    scores[number] += event.log_prob
                elif isinstance(event, SequenceEnd) and not self._body.alignment:
                    one = make_candidate("".join(written[number]), scores[number], None)
                    yield self._make_item(number, [one])
                elif isinstance(event, Candidates):
                    yield self._make_item(number, list_candidates(event))

    def _make_item(self, number: int, candidates: list[dict[str, Any]]) -> dict[str, Any]:
        return {"index": number, "source": self._body.sources[number], "candidates": candidates}


def list_candidates(event: Candidates) -> list[dict[str, Any]]:
    """Return the translations of a source, best first."""
    alignments: list[Alignment | None] = [None] * len(event.completions)
    if event.alignments is not None:
        alignments = list(event.alignments)
    pairs: list[tuple[Completion, Alignment | None]] = list(zip(event.completions, alignments, strict=True))
    return [make_candidate(each.text, each.score, alignment) for each, alignment in pairs]


def make_candidate(text: str, score: float, alignment: Alignment | None) -> dict[str, Any]:
    """Return one translation as plain values."""
    aligned = None
    if alignment is not None:
        aligned = {
            "source_tokens": alignment.source_tokens,
            "target_tokens": alignment.target_tokens,
            "weights": [[round(weight, DIGITS) for weight in row] for row in alignment.weights],
        }
    return {"text": text, "score": clamp_log_prob(score), "alignment": aligned}
