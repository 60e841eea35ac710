"""Completions of the prompts of one request, part by part."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from lightning_xt.inference.serving.events import Scores, SequenceEnd, TokenEvent
from lightning_xt.server.bodies.request_fields import SamplingFields
from lightning_xt.server.jobs.choice_text import ChoiceText, TextDelta, make_prompt_entries
from lightning_xt.server.jobs.generation_limits import (
    build_completion_options,
    check_answer_size,
    check_sequences,
    draw_seed,
    limit_tokens,
)
from lightning_xt.server.jobs.job_group import JobGroup
from lightning_xt.server.served_model import ServedModel
from lightning_xt.server.server_context import ServerContext


@dataclass(frozen=True, kw_only=True)
class CompletionPlan:
    """Completions that a request asks for.

    Args:
        prompts: texts or ids.
        limit: most tokens of a completion. None = by the model.
        stop: strings that end a completion.
        alternatives: most likely tokens to report with each token. None = no log-probabilities.
        echo: whether a completion begins with its prompt.
        new_text: whether completions begin a text, as answers of conversations do, and continue none.
    """

    prompts: Sequence[str | Sequence[int]]
    limit: int | None
    stop: Sequence[str]
    alternatives: int | None
    echo: bool = False
    new_text: bool = False


class CompletionRun:
    """Completions of the prompts of one request. Choice number p * n + i is completion i of prompt p.

    Args:
        body: sampling fields of the request.
        plan: its prompts, and what it asks for.
        model: the model.
        context: parts of the server.
        group: jobs of the request.
    """

    def __init__(
        self, body: SamplingFields, plan: CompletionPlan, model: ServedModel, context: ServerContext, group: JobGroup
    ) -> None:
        self._body, self._plan, self._model = body, plan, model
        self._context, self._group, self._n = context, group, body.n or 1
        # A vocabulary may have fewer tokens.
        self._alternatives = min(plan.alternatives or 0, model.vocab_size)
        self._prompts: list[list[int]] = []
        self._jobs: dict[int, int] = {}
        """Numbers of prompts by numbers of jobs."""
        self._echoes: list[TextDelta] = []

    @property
    def num_choices(self) -> int:
        """Number of completions."""
        return len(self._plan.prompts) * self._n

    async def submit(self) -> int:
        """Submit the jobs, after the scores of prompts that are echoed with log-probabilities; return their seed.

        Raises:
            ApiError: the request is refused.
        """
        plan, model, most = self._plan, self._model, self._context.settings.max_tokens
        self._prompts = [await asyncio.to_thread(model.encode, prompt) for prompt in plan.prompts]
        limits = [limit_tokens(model, ids, plan.limit, most) for ids in self._prompts]
        scored = plan.echo and plan.alternatives is not None
        tokens = sum(limits) + (sum(map(len, self._prompts)) if scored else 0)
        check_answer_size(self._n * tokens, None if plan.alternatives is None else self._alternatives)
        settings = self._context.settings
        if plan.limit != 0 or scored:
            n = self._n if plan.limit != 0 else 1
            check_sequences(len(self._prompts), n, settings.rows + settings.max_waiting)
        self._echoes = await self._echo_prompts()
        seed = draw_seed() if self._body.seed is None else self._body.seed
        seen: Counter[tuple[int, ...]] = Counter()
        for number, (ids, limit) in enumerate(zip(self._prompts, limits, strict=True)):
            if limit == 0:
                continue
            options = build_completion_options(self._body, model, max_new_tokens=limit, seed=seed, stop=plan.stop)
            repeat, seen[tuple(ids)] = seen[tuple(ids)], seen[tuple(ids)] + 1
            complete = partial(self._context.engine.complete, model.name, ids, options)
            start = partial(complete, alternatives=self._alternatives, repeat=repeat, new_text=plan.new_text)
            self._jobs[await self._group.submit(start)] = number
        return seed

    async def _echo_prompts(self) -> list[TextDelta]:
        """Return the parts before the completions of each prompt."""
        if not self._plan.echo:
            return [TextDelta() for _ in self._prompts]
        tokenizer = self._model.tokenizer
        texts = [
            given if isinstance(given, str) else tokenizer.decode(ids)
            for given, ids in zip(self._plan.prompts, self._prompts, strict=True)
        ]
        if self._plan.alternatives is None:
            if self._plan.limit == 0:
                # No job counts them.
                self._group.prompt_tokens += sum(map(len, self._prompts))
            return [TextDelta(text) for text in texts]
        found: dict[int, Scores] = {}
        engine, name = self._context.engine, self._model.name
        for ids in self._prompts:
            await self._group.submit(partial(engine.score, name, ids, alternatives=self._alternatives))
        async with aclosing(self._group.events()) as events:
            async for number, event in events:
                if isinstance(event, Scores):
                    found[number] = event
        counted = self._group.prompt_tokens
        if self._plan.limit != 0:
            # The prompts are counted again with their completions.
            self._group.prompt_tokens -= counted
        return [TextDelta(text, make_prompt_entries(self._model, found[number])) for number, text in enumerate(texts)]

    async def deltas(self) -> AsyncGenerator[tuple[int, TextDelta], None]:
        """Yield the number of a choice and the next part of its text, in the order in which they become certain."""
        log_probs, n = self._plan.alternatives is not None, self._n
        done = self._plan.limit == 0
        for number, echo in enumerate(self._echoes):
            if echo.text or echo.entries or done:
                for choice in range(number * n, number * n + n):
                    yield choice, replace(echo, reason="length") if done else echo
        choices = [
            ChoiceText(self._model, log_probs=log_probs, start=len(echo.text), after=self._find_after(ids))
            for echo, ids in zip(self._echoes, self._prompts, strict=True)
            for _ in range(n)
        ]
        async with aclosing(self._group.events()) as events:
            async for job, event in events:
                if isinstance(event, TokenEvent | SequenceEnd):
                    choice = self._jobs[job] * n + event.sequence
                    delta = choices[choice].push(event)
                    if delta.text or delta.entries or delta.reason:
                        yield choice, delta

    def _find_after(self, prompt: Sequence[int]) -> int | None:
        """Return the id whose text the completions of a prompt continue. None = they begin a text."""
        return prompt[-1] if prompt and not self._plan.new_text else None

    async def collect(self) -> list[TextDelta]:
        """Return the whole text of each choice."""
        parts: list[list[TextDelta]] = [[] for _ in range(self.num_choices)]
        async with aclosing(self.deltas()) as deltas:
            async for choice, delta in deltas:
                parts[choice].append(delta)
        return [join_deltas(each) for each in parts]


def join_deltas(parts: Sequence[TextDelta]) -> TextDelta:
    """Return all parts as one."""
    entries = [entry for part in parts for entry in part.entries]
    return TextDelta("".join(part.text for part in parts), entries, parts[-1].reason if parts else None)
