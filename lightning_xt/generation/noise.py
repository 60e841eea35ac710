"""Randomness that is a pure function of a seed, a step and a word.

There is no generator with a state. A row draws the same tokens alone and in any batch, on any device, before and after
rows are retired or reordered, and a draft that uses the same numbers guesses what its target will draw.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Constants of splitmix64 (Steele et al., 2014, https://doi.org/10.1145/2714064.2660195) as signed numbers.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_BITS = 23  # so that a half more is still a float32, and less than 1


def make_seeds(seeds: list[int], device: torch.device) -> Int[Tensor, " b"]:
    """Seeds as a tensor; any whole number will do."""
    return torch.tensor([(seed + 2**63) % 2**64 - 2**63 for seed in seeds], dtype=torch.long, device=device)


def gumbel(seeds: Int[Tensor, " b"], steps: Int[Tensor, " b"], size: int) -> Float[Tensor, "b v"]:
    """Standard Gumbel noise: the largest of log-probabilities plus this is a draw from them.

    Args:
        seeds: of each row.
        steps: tokens that each row has drawn before.
        size: words.
    """
    words = torch.arange(size, device=seeds.device)
    mixed = _mix(_mix(_mix(seeds) + steps)[:, None] + words * _GOLDEN)
    share = (((mixed >> (64 - _BITS)) & (2**_BITS - 1)).float() + 0.5) / 2**_BITS
    # Small shares are the finest, and small waits are those that win.
    return -(-torch.log1p(-share)).log()


def draw(
    logits: Float[Tensor, "b v"], temperature: int | float, seeds: Int[Tensor, " b"], steps: Int[Tensor, " b"]
) -> Int[Tensor, " b"]:
    """One token per row.

    Args:
        logits: after temperature and filters.
        temperature: 0 takes the likeliest token.
        seeds: of each row.
        steps: tokens that each row has drawn before.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    return (logits + gumbel(seeds, steps, logits.shape[-1])).argmax(dim=-1)


def _mix(x: Tensor) -> Tensor:
    """A permutation of 64-bit numbers under which neighbours have nothing in common."""
    x = x + _GOLDEN
    x = (x ^ ((x >> 30) & (2**34 - 1))) * _FIRST
    x = (x ^ ((x >> 27) & (2**37 - 1))) * _SECOND
    return x ^ ((x >> 31) & (2**33 - 1))
