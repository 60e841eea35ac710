"""Metrics of answers, which are right or wrong."""

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_xt.objectives.cross_entropy import IGNORED


class AnswerScores:
    """Sums of right tokens and of right answers, on the device of the logits, without waiting for it.

    The scored tokens of a row are its answer. A token is right if it is the most likely one after all before it, so an
    answer is right if greedy decoding would give it.
    """

    def __init__(self, device: torch.device) -> None:
        # Apple's GPUs have no float64.
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(4, dtype=precise, device=device)
        """Right tokens, tokens, right answers, answers."""

    def add(
        self, logits: Float[Tensor, "b n v"], tokens: Int[Tensor, "b n+1"], scored: Bool[Tensor, "b n"] | None
    ) -> None:
        """Add a batch; rows without scored tokens are not answers."""
        targets = tokens[:, 1:]
        counted = targets != IGNORED if scored is None else scored & (targets != IGNORED)
        wrong = counted & (logits.argmax(dim=-1) != targets)
        answers = counted.any(dim=1)
        right = (counted & ~wrong).sum(), counted.sum(), (answers & ~wrong.any(dim=1)).sum(), answers.sum()
        self.sums += torch.stack(right).to(self.sums.dtype)

    def compute(self, trainer: Trainer) -> dict[str, Tensor]:
        """Compute token_accuracy and exact_match of all processes, from 0 to 1."""
        right, tokens, exact, answers = trainer.strategy.reduce(self.sums, reduce_op="sum")
        found = {"token_accuracy": right / tokens.clamp(min=1), "exact_match": exact / answers.clamp(min=1)}
        return {name: value.float() for name, value in found.items()}
