"""Random numbers that depend only on the tokens of a row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.split_mix import GOLDEN, mix_bits, shift_right


def draw_by_content(tokens: Int[Tensor, "b n"], count: int, seed: int = 0) -> Float[Tensor, "count b n"]:
    """Draw uniform numbers from 0, inclusive, to 1 for each token, as a pure function of its row and a seed.

    The numbers are outputs of SplitMix64 that starts at a hash of the row's tokens and their places. So they depend
    neither on the batch nor on the process.

    Args:
        tokens: ids.
        count: numbers for each token.
        seed: any integer of 64 bits with a sign.
    """
    place = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    row = mix_bits(mix_bits(tokens.long() + GOLDEN * place).sum(dim=1) + seed)[:, None]
    counter = place + tokens.shape[1] * torch.arange(count, device=tokens.device)[:, None, None]
    # 24 bits are all that a float32 below 1 can hold.
    return shift_right(mix_bits(row + GOLDEN * counter), 40).float() / 2**24
