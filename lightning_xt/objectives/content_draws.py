"""Random numbers that depend only on the tokens of a row."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def draw_by_content(tokens: Int[Tensor, "b n"], count: int, seed: int = 0) -> Float[Tensor, "count b n"]:
    """Draw uniform numbers from 0, inclusive, to 1 for each token, as a pure function of its row and a seed.

    The numbers are outputs of SplitMix64 (Steele, Lea and Flood, 2014, https://doi.org/10.1145/2660193.2660195) that
    starts at a hash of the row's tokens and their places. So they depend neither on the batch nor on the process.

    Args:
        tokens: ids.
        count: numbers for each token.
        seed: any integer of 64 bits with a sign.
    """
    place = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    row = _mix(_mix(tokens.long() + _GOLDEN * place).sum(dim=1) + seed)[:, None]
    counter = place + tokens.shape[1] * torch.arange(count, device=tokens.device)[:, None, None]
    # 24 bits are all that a float32 below 1 can hold.
    return _shift(_mix(row + _GOLDEN * counter), 40).float() / 2**24


def _mix(z: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Apply SplitMix64's output function modulo 2**64; torch's integers wrap around."""
    z = (z ^ _shift(z, 30)) * _FIRST
    z = (z ^ _shift(z, 27)) * _SECOND
    return z ^ _shift(z, 31)


def _shift(z: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Shift to the right and fill with zeros; torch's shift fills with the sign."""
    return (z >> bits) & (2 ** (64 - bits) - 1)


def _signed(number: int) -> int:
    """Return the signed 64-bit integer with the bits of an unsigned one."""
    return number - 2**64 if number >= 2**63 else number


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)
