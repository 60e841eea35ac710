"""Targets and their cross-entropy, where logits and targets meet."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.objectives.base import Loss

IGNORED = -100
"""Target that does not count, as in torch and Hugging Face's libraries."""


def split_targets(tokens: Int[Tensor, "b t"]) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
    """Split n + 1 tokens into n that the model reads and n targets.

    -100 is read as id 0, because no embedding has a vector for -100.
    """
    return tokens[:, :-1].masked_fill(tokens[:, :-1] == IGNORED, 0), tokens[:, 1:]


def cross_entropy(
    logits: Float[Tensor, "b n v"],
    targets: Int[Tensor, "b n"],
    scored: Bool[Tensor, "b n"] | None = None,
    label_smoothing: float = 0.0,
) -> Loss:
    """Compute the negative log-likelihood of the targets in nats, in float32 or better; targets of -100 never count.

    Args:
        logits: scores of each token of the vocabulary.
        targets: ids of the right tokens.
        scored: True for each target that counts. None = all.
        label_smoothing: fraction of the target's weight that is spread over the vocabulary, the target included.
    """
    if scored is not None:
        targets = targets.masked_fill(~scored, IGNORED)
    precise = torch.promote_types(logits.dtype, torch.float32)
    total = F.cross_entropy(
        logits.flatten(0, 1).to(precise),
        targets.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    count = (targets != IGNORED).sum()
    return Loss(total / count.clamp(min=1), total.detach(), count)
