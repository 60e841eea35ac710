"""The one place where logits and targets meet."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.objectives.base import Loss

IGNORED = -100
"""Target that counts for nothing."""


def cross_entropy(
    logits: Float[Tensor, "b n v"],
    targets: Int[Tensor, "b n"],
    scored: Bool[Tensor, "b n"] | None = None,
    label_smoothing: float = 0.0,
) -> Loss:
    """Negative log-likelihood of the targets in nats, computed in float32 or better; targets of -100 never count.

    Args:
        logits: scores of each word.
        targets: the right words.
        scored: which targets count. None = all.
        label_smoothing: share of the target's weight that is spread over all words, the right one included.
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
