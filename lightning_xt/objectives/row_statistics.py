"""Statistics of large logits for losses, row by row, without a copy of all logits in float32."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGE, BLOCK = {"cpu": 1 << 22}, {"cpu": 1 << 18}
"""Fewest logits that are read in blocks of rows, and logits of a block, which fit in a CPU's cache; by device."""
LARGE_ELSEWHERE, BLOCK_ELSEWHERE = 1 << 26, 1 << 24
"""Both on other devices, where a smaller block would not keep a GPU busy."""


def is_large(logits: Float[Tensor, "*_ v"]) -> bool:
    """Return True if logits should be read in blocks of rows; as a whole, fewer are faster."""
    return logits.numel() >= LARGE.get(logits.device.type, LARGE_ELSEWHERE)


class RowStatistics(torch.autograd.Function):
    """Normalizer's logarithm, target's logit and mean logit of each row, in float32 or better.

    A cross-entropy of N x v logits in bfloat16 keeps and makes three copies of them in float32: the logits, the log
    softmax and its gradient. Here both passes read the logits in blocks of rows, and what is kept is the logits
    themselves and three numbers a row. Any head may have made the logits.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Float[Tensor, "n v"], targets: Int[Tensor, " n"], weights: Float[Tensor, " v"] | None
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Compute the statistics.

        Args:
            ctx: record for the backward pass.
            logits: scores of each token of the vocabulary.
            targets: ids whose logits are picked.
            weights: weight of each logit in the mean. None = no mean; it is 0 everywhere.
        """
        precise = torch.promote_types(logits.dtype, torch.float32)
        normalizers, means = (logits.new_zeros(len(logits), dtype=precise) for _ in range(2))
        for rows in _cut(logits):
            block = logits[rows].to(precise)
            normalizers[rows] = block.logsumexp(dim=-1)
            if weights is not None:
                # A product would be rounded to bfloat16 by autocast.
                means[rows] = (block * weights).sum(dim=-1)
        picked = logits.gather(1, targets[:, None]).squeeze(1).to(precise)
        ctx.save_for_backward(logits, targets, weights, normalizers)
        return normalizers, picked, means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, weights, normalizers = ctx.saved_tensors
        of_normalizers, of_picked, of_means = (gradient[:, None] for gradient in gradients)
        made = torch.empty_like(logits)
        for rows in _cut(logits):
            # The softmax, then the gradient; both in the wider type.
            block = (logits[rows] - normalizers[rows, None]).exp_().mul_(of_normalizers[rows])
            block.scatter_add_(1, targets[rows, None], of_picked[rows])
            if weights is not None:
                block.addcmul_(of_means[rows], weights)
            made[rows] = block
        return made, None, None


def _cut(logits: Tensor) -> list[slice]:
    """Cut the rows into blocks."""
    size = max(1, BLOCK.get(logits.device.type, BLOCK_ELSEWHERE) // max(1, logits.shape[-1]))
    return [slice(first, first + size) for first in range(0, len(logits), size)]
