"""Log-probabilities of prompts, computed in pieces between decode steps."""

from collections.abc import Sequence
from typing import Any

import torch

from lightning_xt.generation.batching.row_state import upcast
from lightning_xt.generation.protocol import Autoregressive, DecodingCache
from lightning_xt.inference.serving.events import Alternatives, JobEnd, Scores
from lightning_xt.inference.serving.generation_task import TokenCounts
from lightning_xt.inference.serving.job import Job


class ScoringTask:
    """Prompt whose tokens are scored piece by piece.

    Args:
        job: receives the events.
        tokens: ids of the prompt.
        alternatives: number of most likely tokens to report for each place.
        device: device of the model.
        counts: tokens of the model so far.
        model: in evaluation mode.
        piece: most tokens of a forward.
    """

    def __init__(
        self,
        job: Job,
        tokens: Sequence[int],
        alternatives: int,
        device: torch.device,
        counts: TokenCounts,
        model: Autoregressive,
        piece: int,
    ) -> None:
        self.job, self._counts = job, counts
        self._model, self._piece, self._num_alternatives = model, piece, alternatives
        self._ids, self._tokens = list(tokens), torch.tensor([tokens], device=device)
        self._log_probs: list[float | None] = [None]
        self._alternatives: list[Alternatives] = [()]
        self._cache: DecodingCache | None = None

    def advance(self) -> None:
        """Score the next piece; send the scores after the last."""
        if not self.job.running:
            self.job.running = True
            self._counts.prompt += len(self._ids)
        start, rest = len(self._log_probs) - 1, len(self._ids) - len(self._log_probs)
        if rest > 0:
            if rest > self._piece and self._cache is None:
                self._cache = self._model.new_cache(1, len(self._ids))
            self._score(start, min(self._piece, rest))
        if len(self._log_probs) == len(self._ids):
            self.job.send(Scores(self._ids, self._log_probs, self._alternatives))
            self.job.send(JobEnd(len(self._ids), 0))

    def _score(self, start: int, number: int) -> None:
        read, targets = (self._tokens[:, at : at + number] for at in (start, start + 1))
        scores = upcast(self._model(read, cache=self._cache)[0]).log_softmax(dim=-1)
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
