"""Attention in plain products: every part works here, and the other kernels are tested against it."""

from torch import Tensor, nn

from lightning_xt.nn.attention.kernels.scoring import Scoring


def attend_explicit(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
    """Gather values (b h i e) for queries (b h i d) from keys (b g j d) and values (b g j e)."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = scoring.score(q, k, scoring.scale)
    for mod in scoring.score_mods:
        scores = mod(scores)
    if scoring.position is not None and scoring.position.paired:
        own = scoring.where.memory
        added = scoring.position.pairwise(scores[..., own:], q, scoring.where.add_memory(0))
        scores = scores + nn.functional.pad(added, (own, 0))
    bias = scoring.dense_bias(q.shape[0], q.shape[1])
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    weights = scoring.normalizer(scores, scoring.where.dense())
    for mod in scoring.score_mods:
        weights = mod.modify_weights(weights)
    # A score may be of a wider type.
    return nn.functional.dropout(weights.to(v.dtype), scoring.dropout) @ v
