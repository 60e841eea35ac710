"""Masks in the form of flex_attention."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

BLOCK = 128
"""Queries and keys of a block of flex_attention; lengths are padded to multiples of it."""


def make_block_mask(
    is_visible: Callable[[Tensor, Tensor, Tensor], Tensor], rows: int, lengths: tuple[int, int], device: torch.device
) -> BlockMask:
    """Make the mask of a rule.

    Args:
        is_visible: rule of a row, the index of a query and the index of a key.
        rows: number of rows that differ; 1 if all rows share the mask.
        lengths: numbers of queries and keys.
        device: device of the mask.
    """
    # Uncompiled, torch holds the mask of all pairs on the way; compiled, only the blocks.
    eager = device.type != "cuda" or torch.compiler.is_compiling()
    create = create_block_mask if eager else compile_create_block_mask()
    mask: BlockMask = create(
        lambda b, h, i, j: is_visible(torch.zeros_like(b) if rows == 1 else b, i, j),
        B=None if rows == 1 else rows,
        H=None,
        Q_LEN=lengths[0],
        KV_LEN=lengths[1],
        device=str(device),
    )
    return mask


@lru_cache(maxsize=1)
def compile_create_block_mask(**options: Any) -> Any:
    """Compile create_block_mask; the options are those of torch.compile."""
    return torch.compile(create_block_mask, **options)
