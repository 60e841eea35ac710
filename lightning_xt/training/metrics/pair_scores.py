"""Metrics of the pairs of a split, which do not depend on batches and processes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_xt.core.batch import EvaluationPairs
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.inference.translation import cut_at_end
from lightning_xt.objectives.base import Loss
from lightning_xt.training.metrics.text_scores import TextScores


class ShownPair(NamedTuple):
    """A pair with its prediction; `number` is its place in the split."""

    number: int
    source: str
    target: str
    prediction: str


class PairScores:
    """Sums of likelihoods, matches and translation scores of a split.

    Args:
        device: that of the batches.
        tokenizer: target tokenizer.
        limit: number of pairs to decode, from the first. None = all.
        show: number of pairs to show, from the first.
        previous: those of an earlier validation, whose metric is used again: a Metric refers to itself, so that its
            memory would wait for Python's collector. None = none.
    """

    def __init__(
        self,
        device: torch.device,
        tokenizer: Tokenizer,
        limit: int | None,
        show: int,
        previous: "PairScores | None" = None,
    ) -> None:
        self.device, self.tokenizer, self.limit, self.show = device, tokenizer, limit, show
        # Apple's GPUs have no float64.
        upcast = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(5, dtype=upcast, device=device)
        """Nats, tokens, correct tokens; decoded pairs, exact matches."""
        self.rows = 0
        """Number of rows of this process so far."""
        self.text_scores: TextScores | None = None
        self._text_metric: TextScores = TextScores() if previous is None else previous._text_metric
        self.pairs: list[ShownPair] = []

    def add(self, batch: EvaluationPairs, loss: Loss, correct: Int[Tensor, ""]) -> None:
        """Add the likelihoods of a batch."""
        self.rows += len(batch.src)
        self.sums[:3] += torch.stack([value.to(self.sums.dtype) for value in (loss.total, loss.count, correct)])
        if batch.references is not None and self.text_scores is None:
            self.text_scores = self._text_metric.to(self.device)
            self.text_scores.reset()
            # A process may have nothing to decode.
            self.text_scores.update([], [])

    def select_rows(self, index: Int[Tensor, " b"]) -> list[int]:
        """Select the rows of a batch to decode."""
        return [
            row
            for row, number in enumerate(index.tolist())
            if number >= 0 and (self.limit is None or number < self.limit)
        ]

    def compare(
        self,
        batch: EvaluationPairs,
        rows: Sequence[int],
        found: Int[Tensor, "r n"],
        source_tokenizer: Tokenizer,
        texts: Sequence[str] | None = None,
    ) -> None:
        """Compare the predicted ids of some rows of a batch with their targets, and their texts (None = of the ids)."""
        end, pad = self.tokenizer.end, self.tokenizer.pad
        for place, (row, ids) in enumerate(zip(rows, found.tolist(), strict=True)):
            target = cut_at_end(_strip_padding(batch.tgt[row, 1:].tolist(), pad), end)
            answer = cut_at_end(ids, end) if end is not None else ids[: len(target)]
            self.sums[3] += 1
            # A prediction without its end does not match.
            self.sums[4] += answer == target and (end is None or end in ids)
            text = self.tokenizer.decode(answer) if texts is None else texts[place]
            reference = self.tokenizer.decode(target) if batch.references is None else batch.references[row]
            if self.text_scores is not None:
                self.text_scores.update([text], [reference])
            if (number := int(batch.index[row])) < self.show:
                source = source_tokenizer.decode(batch.src[row][batch.src_mask[row]].tolist())
                self.pairs.append(ShownPair(number, source, reference, text))

    def compute(self, trainer: Trainer) -> dict[str, Tensor]:
        """Compute the metrics of all processes: loss in nats per token, fractions from 0 to 1, BLEU and chrF to 100."""
        nats, tokens, correct, decoded, exact = trainer.strategy.reduce(self.sums, reduce_op="sum")
        loss = nats / tokens.clamp(min=1)
        found = {"loss": loss, "perplexity": loss.exp(), "token_accuracy": correct / tokens.clamp(min=1)}
        if decoded:
            found["exact_match"] = exact / decoded
            if self.text_scores is not None:
                found |= {name: torch.tensor(value) for name, value in self.text_scores.compute().items()}
        return {name: value.float() for name, value in found.items()}

    def collect_pairs(self, trainer: Trainer) -> list[ShownPair]:
        """Collect the pairs to show of all processes, in order."""
        pairs: list[Any] = [self.pairs]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            pairs = [None] * trainer.world_size
            torch.distributed.all_gather_object(pairs, self.pairs)
        return sorted(pair for some in pairs for pair in some)


def _strip_padding(ids: list[int], pad: int | None) -> list[int]:
    while ids and pad is not None and ids[-1] == pad:
        ids.pop()
    return ids


def check_decode_pairs(number: int | None) -> None:
    """Raise a ValueError for a number of pairs to decode below 0."""
    if number is not None and number < 0:
        raise ValueError(f"model.val_decode_pairs is {number}; it must be at least 0 pairs, or null for all of them")
