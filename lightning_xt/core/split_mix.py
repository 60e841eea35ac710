"""SplitMix64: random numbers as a pure function of a counter.

Steele, Lea and Flood, 2014. https://doi.org/10.1145/2660193.2660195
Output n of the generator with the seed s is `mix_bits(s + n * GOLDEN)`, n from 1. Torch's integers wrap around.
"""

from jaxtyping import Int
from torch import Tensor

# Signed numbers with the bits of the paper's constants.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def mix_bits(z: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Permute 64-bit integers so that neighbours become unrelated."""
    z = (z ^ shift_right(z, 30)) * _FIRST
    z = (z ^ shift_right(z, 27)) * _SECOND
    return z ^ shift_right(z, 31)


def shift_right(z: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Shift to the right and fill with zeros; torch's shift fills with the sign."""
    return (z >> bits) & (2 ** (64 - bits) - 1)
