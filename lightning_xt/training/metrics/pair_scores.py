"""What is measured on the pairs of a split, however they were cut into batches and shared by processes."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.text import CHRFScore, SacreBLEUScore

from lightning_xt.core.batch import EvaluationPairs
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.inference.translation import cut_at_end
from lightning_xt.objectives.base import Loss


class ShownPair(NamedTuple):
    """A pair and what the model made of its source; `number` is where it stands in the split."""

    number: int
    source: str
    target: str
    prediction: str


class PairScores:
    """Adds up likelihoods, matches and translations of a split.

    Args:
        device: where the batches are.
        tokenizer: turns ids into targets.
        limit: pairs that are decoded, the first ones. None = all.
        show: pairs to show, the first ones.
    """

    def __init__(self, device: torch.device, tokenizer: Tokenizer, limit: int | None, show: int) -> None:
        self.device, self.tokenizer, self.limit, self.show = device, tokenizer, limit, show
        # Apple's GPUs know no float64.
        upcast = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(5, dtype=upcast, device=device)
        """Nats, tokens, tokens predicted right; pairs decoded, those decoded exactly."""
        self.rows = 0
        """Rows of this process so far."""
        self.of_text: tuple[Metric, ...] | None = None
        self.pairs: list[ShownPair] = []

    def add(self, batch: EvaluationPairs, loss: Loss, correct: Int[Tensor, ""]) -> None:
        """Takes up how likely the targets of a batch are."""
        self.rows += len(batch.src)
        self.sums[:3] += torch.stack([value.to(self.sums.dtype) for value in (loss.total, loss.count, correct)])
        if batch.references is not None and self.of_text is None:
            # With sacrebleu's settings: 13a tokens; characters only. Counts in 16 bits would stop counting.
            metrics = SacreBLEUScore(), CHRFScore(n_word_order=0)
            self.of_text = tuple(metric.to(self.device).set_dtype(torch.float32) for metric in metrics)

    def select_rows(self, index: Int[Tensor, " b"]) -> list[int]:
        """The rows of a batch that are to be decoded."""
        return [
            row
            for row, number in enumerate(index.tolist())
            if number >= 0 and (self.limit is None or number < self.limit)
        ]

    def compare(
        self, batch: EvaluationPairs, rows: Sequence[int], found: Int[Tensor, "r n"], source_tokenizer: Tokenizer
    ) -> None:
        """Takes up the answers to some rows of a batch.

        Args:
            batch: the batch.
            rows: the rows.
            found: what was decoded for each of them.
            source_tokenizer: turns ids into sources.
        """
        end, pad = self.tokenizer.end, self.tokenizer.pad
        for row, ids in zip(rows, found.tolist(), strict=True):
            target = cut_at_end(_strip_padding(batch.tgt[row, 1:].tolist(), pad), end)
            answer = cut_at_end(ids, end) if end is not None else ids[: len(target)]
            self.sums[3] += 1
            # An answer that never ended is no match.
            self.sums[4] += answer == target and (end is None or end in ids)
            text = self.tokenizer.decode(answer)
            reference = self.tokenizer.decode(target) if batch.references is None else batch.references[row]
            if self.of_text is not None:
                for metric in self.of_text:
                    metric.update([text], [[reference]])
            if (number := int(batch.index[row])) < self.show:
                source = source_tokenizer.decode(batch.src[row][batch.src_mask[row]].tolist())
                self.pairs.append(ShownPair(number, source, reference, text))

    def compute(self, trainer: Trainer) -> dict[str, Tensor]:
        """What is reported, of all processes: loss in nats per token, shares from 0 to 1, BLEU and chrF to 100."""
        nats, tokens, correct, decoded, exact = trainer.strategy.reduce(self.sums, reduce_op="sum")
        loss = nats / tokens.clamp(min=1)
        found = {"loss": loss, "perplexity": loss.exp(), "token_accuracy": correct / tokens.clamp(min=1)}
        if decoded:
            found["exact_match"] = exact / decoded
            if self.of_text is not None:
                with warnings.catch_warnings():
                    # Of several processes one may have decoded nothing.
                    warnings.filterwarnings("ignore", ".*was called before the ``update`` method", UserWarning)
                    found["bleu"], found["chrf"] = (100 * metric.compute() for metric in self.of_text)
        return {name: value.float() for name, value in found.items()}

    def collect_examples(self, trainer: Trainer) -> list[str]:
        """The pairs to show, of all processes, in their order."""
        pairs: list[Any] = [self.pairs]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            pairs = [None] * trainer.world_size
            torch.distributed.all_gather_object(pairs, self.pairs)
        return [
            f"source      {pair.source}\ntarget      {pair.target}\nprediction  {pair.prediction}"
            for pair in sorted(pair for some in pairs for pair in some)
        ]


def _strip_padding(ids: list[int], pad: int | None) -> list[int]:
    while ids and pad is not None and ids[-1] == pad:
        ids.pop()
    return ids
