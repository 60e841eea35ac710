"""Targets and their cross-entropy, where logits and targets meet."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.objectives.base import Loss
from lightning_xt.objectives.row_statistics import RowStatistics, is_large

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
    unused: Int[Tensor, " u"] | None = None,
) -> Loss:
    """Compute the negative log-likelihood of the targets in nats, in float32 or better; targets of -100 never count.

    Large logits are read in blocks of rows, so that no copy of all of them in float32 is made.

    Args:
        logits: scores of each token of the vocabulary.
        targets: ids of the right tokens.
        scored: True for each target that counts. None = all.
        label_smoothing: fraction of the target's weight that is spread over the vocabulary, the target included.
        unused: ids over which nothing is spread. None = there are none.
    """
    if scored is not None:
        targets = targets.masked_fill(~scored, IGNORED)
    unused = unused if unused is not None and len(unused) else None
    sum_nats = _sum_in_blocks if is_large(logits) else _sum_at_once
    total = sum_nats(logits.flatten(0, 1), targets.flatten(), label_smoothing, unused)
    count = (targets != IGNORED).sum()
    return Loss(total / count.clamp(min=1), total.detach(), count)


def _sum_at_once(
    logits: Float[Tensor, "n v"], ids: Int[Tensor, " n"], label_smoothing: float, unused: Int[Tensor, " u"] | None
) -> Float[Tensor, ""]:
    """Sum the nats of all targets."""
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if not label_smoothing or unused is None:
        return F.cross_entropy(precise, ids, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing)
    log_probs = precise.log_softmax(dim=-1)
    spread = log_probs.index_fill(-1, unused, 0.0).sum(dim=-1) / (logits.shape[-1] - len(unused))
    smooth = -spread.masked_fill(ids == IGNORED, 0.0).sum()
    sharp = F.nll_loss(log_probs, ids, ignore_index=IGNORED, reduction="sum")
    return (1 - label_smoothing) * sharp + label_smoothing * smooth


def _sum_in_blocks(
    logits: Float[Tensor, "n v"], ids: Int[Tensor, " n"], label_smoothing: float, unused: Int[Tensor, " u"] | None
) -> Float[Tensor, ""]:
    """Sum the nats of all targets without a copy of all logits."""
    ignored, weights = ids == IGNORED, None
    if label_smoothing:
        weights = logits.new_ones(logits.shape[-1], dtype=torch.promote_types(logits.dtype, torch.float32))
        weights = weights if unused is None else weights.index_fill(0, unused, 0.0)
        weights = weights / weights.sum()
    normalizers, picked, means = RowStatistics.apply(logits, ids.masked_fill(ignored, 0), weights)
    nats = normalizers - (1 - label_smoothing) * picked - label_smoothing * means
    return nats.masked_fill(ignored, 0.0).sum()


def compute_logit_z_loss(logits: Float[Tensor, "b n v"], targets: Int[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Compute the mean squared logarithm of the softmax's normalizer, in float32 or better.

    Args:
        logits: scores of each token of the vocabulary.
        targets: ids; where they are -100, logits do not count.
    """
    counted = targets != IGNORED
    if is_large(logits):
        flat = logits.flatten(0, 1)
        normalizers = RowStatistics.apply(flat, torch.zeros_like(counted.flatten(), dtype=torch.long), None)[0]
        normalizers = normalizers.view_as(counted)
    else:
        normalizers = logits.to(torch.promote_types(logits.dtype, torch.float32)).logsumexp(dim=-1)
    return normalizers.square().masked_fill(~counted, 0.0).sum() / counted.sum().clamp(min=1)
