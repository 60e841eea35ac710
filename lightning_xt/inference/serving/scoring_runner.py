"""Log-probabilities of prompts, computed in pieces between decode steps."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from lightning_xt.generation.batching.row_state import upcast
from lightning_xt.generation.protocol import Autoregressive, DecodingCache
from lightning_xt.inference.serving.events import Alternatives, ErrorEvent, JobEnd, Scores
from lightning_xt.inference.serving.generation_task import TokenCounts
from lightning_xt.inference.serving.job import Job
from lightning_xt.inference.serving.step_failures import explain_failure


class ScoringTask:
    """Prompt whose tokens are scored piece by piece.

    Args:
        job: receives the events.
        tokens: ids of the prompt.
        alternatives: number of most likely tokens to report for each place.
        device: device of the model.
        counts: tokens of the model so far.
    """

    def __init__(
        self, job: Job, tokens: Sequence[int], alternatives: int, device: torch.device, counts: TokenCounts
    ) -> None:
        self.job, self._counts = job, counts
        self._ids, self._tokens, self._num_alternatives = (
            list(tokens),
            torch.tensor([tokens], device=device),
            alternatives,
        )
        self._log_probs: list[float | None] = [None]
        self._alternatives: list[Alternatives] = [()]
        self._cache: DecodingCache | None = None

    def advance(self, model: Autoregressive, piece: int) -> None:
        """Score up to `piece` more tokens; send the scores after the last."""
        if not self.job.running:
            self.job.running = True
            self._counts.prompt += len(self._ids)
        start, rest = len(self._log_probs) - 1, len(self._ids) - len(self._log_probs)
        if rest > 0:
            if rest > piece and self._cache is None:
                self._cache = model.new_cache(1, len(self._ids))
            self._score(model, start, min(piece, rest))
        if len(self._log_probs) == len(self._ids):
            self.job.send(Scores(self._ids, self._log_probs, self._alternatives))
            self.job.send(JobEnd(len(self._ids), 0))

    def _score(self, model: Autoregressive, start: int, number: int) -> None:
        read, targets = (self._tokens[:, at : at + number] for at in (start, start + 1))
        scores = upcast(model(read, cache=self._cache)[0]).log_softmax(dim=-1)
        if not bool(scores.isfinite().any(dim=-1).all()):
            raise ValueError(
                "the model's scores of the prompt are not finite; its weights may hold NaN or infinity (use another "
                "checkpoint)"
            )
        self._log_probs += scores.gather(-1, targets[0, :, None])[:, 0].tolist()
        if self._num_alternatives:
            best = scores.topk(self._num_alternatives, dim=-1)
            pairs: list[Any] = [best.indices.tolist(), best.values.tolist()]
            self._alternatives += [tuple(zip(*each, strict=True)) for each in zip(*pairs, strict=True)]
        else:
            self._alternatives += [()] * number


class ScoringRunner:
    """Scoring of prompts, one piece of one prompt a step.

    Args:
        model: in evaluation mode.
        piece: most tokens of a forward.
    """

    def __init__(self, model: Autoregressive, piece: int) -> None:
        self._model, self._piece = model, piece
        self._waiting: deque[ScoringTask] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def add(self, task: ScoringTask) -> None:
        """Queue a job."""
        self._waiting.append(task)

    def remove(self, job: Job) -> None:
        """Drop a job."""
        self._waiting = deque(task for task in self._waiting if task.job is not job)

    def advance(self) -> None:
        """Score a piece of the first prompt."""
        if not self._waiting:
            return
        task = self._waiting[0]
        try:
            task.advance(self._model, self._piece)
        except Exception as error:
            task.job.send(ErrorEvent(explain_failure(error)))
        if task.job.closed:
            self._waiting.remove(task)

    def fail(self, error: Exception) -> None:
        """End all jobs with an error."""
        tasks = list(self._waiting)
        self._waiting.clear()
        explained = explain_failure(error)
        for task in tasks:
            task.job.send(ErrorEvent(explained))
