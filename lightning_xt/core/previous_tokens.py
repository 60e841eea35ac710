"""The tokens before each token, for parts that mix neighbours."""

import torch
from jaxtyping import Num
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.where import Where


def get_previous(
    x: Num[Tensor, "b *heads n d"], where: Where, cache: CallCache | None, name: str, count: int = 1
) -> tuple[Num[Tensor, "b *heads n d"], ...]:
    """Return the vectors 1, 2, ... `count` tokens before each token, those of earlier forwards included.

    A vector is zero if the row or document has no such token, or a masked one.

    Args:
        x: one vector for each token of this forward.
        where: positions of the tokens, their documents and which of them are masked.
        cache: cache of the call, which keeps the last vectors for the next forward. None outside decoding.
        name: name of the buffer in the cache.
        count: number of tokens to look back.
    """
    n = x.shape[-2]
    if where.valid is not None:
        x = x.masked_fill(~_spread(where.valid, x), 0)
    # One buffer entry holds all that the next token looks back to, so that even a window of one token keeps it.
    kept = x.new_empty(()).expand(*x.shape[:-2], 1, count * x.shape[-1])
    tail = torch.zeros_like(kept) if cache is None else cache.get_last(name, kept)
    padded = torch.cat((tail.unflatten(-1, (count, -1)).squeeze(-3).flip(-2), x), dim=-2)
    before = [padded[..., count - back : count - back + n, :] for back in range(1, count + 1)]
    if where.query_documents is not None:
        before = [_mask_documents(each, back, where.query_documents) for back, each in enumerate(before, start=1)]
    if cache is not None:
        cache.append(name, torch.cat((x, *before[:-1]), dim=-1) if count > 1 else x, window=1)
    return tuple(before)


def _mask_documents(before: Tensor, back: int, documents: Tensor) -> Tensor:
    """Replace vectors of other documents by zeros."""
    other = torch.ones_like(documents, dtype=torch.bool)
    other[:, back:] = documents[:, back:] != documents[:, : documents.shape[1] - back]
    return before.masked_fill(_spread(other, before), 0)


def _spread(mask: Tensor, x: Tensor) -> Tensor:
    """Spread one value per row and token over the axes of a (b ... n d) tensor."""
    return mask.view(mask.shape[0], *(1,) * (x.dim() - 3), -1, 1)
