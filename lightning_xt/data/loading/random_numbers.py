"""Random numbers by their place in a sequence, without a state."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def split_mix_64(
    seed: int | NDArray[np.uint64], numbers: Sequence[int] | NDArray[np.uint64] | NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return outputs of a SplitMix64 generator by number: 64 random bits each, computed without earlier outputs.

    Steele, Lea and Flood 2014, https://doi.org/10.1145/2660193.2660195. The state starts at a hash of the seed, so
    neighbouring seeds share no part of their sequences.

    Args:
        seed: the generator's seed; an array of seeds broadcasts against the numbers.
        numbers: which outputs to return.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    start = _mix(np.atleast_1d(np.asarray(seed, dtype=np.uint64)))
    return _mix(start + (np.asarray(numbers, dtype=np.uint64) + np.uint64(1)) * golden)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply SplitMix64's output function (Stafford's variant 13 of the MurmurHash3 finalizer), modulo 2**64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
