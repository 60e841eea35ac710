"""Positions that are drawn from a longer range in training."""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_xt.core.where import Where


def draw_positions(where: Where, num_positions: int, reader: str) -> Where:
    """Replace the positions 0, 1, 2, ... by sorted draws from 0 to num_positions - 1, without repetition.

    All rows have the same draws, and all layers of a forward too. Positions of the caller stay as they are.

    Args:
        where: positions of queries and keys.
        num_positions: number of positions to draw from.
        reader: slot and class that wants them, for the message.

    Raises:
        ValueError: there are more tokens than positions.
    """
    if where.order is not None:
        return where
    n = max(where.queries.shape[-1], where.keys.shape[-1])
    if n > num_positions:
        raise ValueError(
            f"{reader} has num_positions {num_positions}, but the sequence is {n} tokens long; shorten it, or raise "
            "num_positions"
        )

    # Layers share the masks of a forward, and so its draws.
    drawn: Int[Tensor, " n"] | None = where.masks.get(("drawn", num_positions, n))
    if drawn is None:
        drawn = torch.randperm(num_positions, device=where.queries.device)[:n].sort().values
        where.masks["drawn", num_positions, n] = drawn
    return replace(
        where, queries=drawn[where.queries], keys=drawn[where.keys], end=num_positions, aligned=False, masks={}
    )
