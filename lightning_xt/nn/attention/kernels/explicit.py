"""Attention in plain products: every part works here, and the other kernels are tested against it."""

from torch import Tensor, nn

from lightning_xt.nn.attention.kernels.scoring import Recorded, Scoring


def attend_explicit(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
    """Gather values (b h i e) for queries (b h i d) from keys (b g j d) and values (b g j e)."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = scoring.score(q, k, scoring.scale)
    mods = list(zip(scoring.score_mods, scoring.mods_prepared, strict=True))
    for mod, p in mods:
        scores = mod(scores, p)
    unbiased = scores
    if scoring.position is not None and scoring.position.paired:
        own = scoring.where.memory
        where = scoring.where.drop_memory()
        rest = scores[..., own:], q, k[..., own:, :], where, scoring.prepared
        added = scoring.position.pairwise(*rest, scoring.scale)
        scores = scores + nn.functional.pad(added, (own, 0))
    bias = scoring.dense_bias(q.shape[0], q.shape[1])
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    weights = scoring.normalizer.weigh(scores, scoring.where)
    for mod, p in mods:
        weights = mod.modify_weights(weights, p)
    if scoring.record is not None:
        scoring.record.append(Recorded(unbiased, scores, weights))
    # A score may be of a wider type.
    return nn.functional.dropout(weights.to(v.dtype), scoring.dropout) @ v
