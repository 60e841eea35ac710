"""Random numbers that are a pure function of a seed, a step and a token.

No generator holds a state. A row samples the same tokens alone and in any batch, on any device, and after other rows
have been retired or reordered. A draft model that uses the same numbers often proposes what its target samples.
"""

from hashlib import blake2b

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.split_mix import GOLDEN, mix_bits, shift_right

_BITS = 23  # plus one half this is still exact in float32, and less than 1


def make_seeds(seeds: list[int], device: torch.device) -> Int[Tensor, " b"]:
    """Return seeds as a tensor; any integer is valid."""
    return torch.tensor([(seed + 2**63) % 2**64 - 2**63 for seed in seeds], dtype=torch.long, device=device)


def derive_seed(seed: int, prompt: str, repeat: int = 0) -> int:
    """Return the seed of a prompt, unrelated to those of other prompts; seed + n gives the result + n.

    Args:
        seed: seed of the caller.
        prompt: text of the prompt, or of its source.
        repeat: number of equal prompts before it.
    """
    content = f"{repeat} {prompt}".encode("utf-8", "surrogatepass")
    return seed + int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def sample_gumbel(seeds: Int[Tensor, " b"], steps: Int[Tensor, " b"], size: int) -> Float[Tensor, "b v"]:
    """Return standard Gumbel noise. The argmax of log-probabilities plus this noise is a sample from them.

    Args:
        seeds: seed of each row.
        steps: tokens that each row has generated before.
        size: tokens in the vocabulary.
    """
    tokens = torch.arange(size, device=seeds.device)
    mixed = _mix(_mix(_mix(seeds) + steps)[:, None] + tokens * GOLDEN)
    uniform = (shift_right(mixed, 64 - _BITS).float() + 0.5) / 2**_BITS
    # Uniform numbers are finest near 0, and small exponential waits are the ones that win.
    return -(-torch.log1p(-uniform)).log()


def sample_tokens(
    logits: Float[Tensor, "b v"], temperature: int | float, seeds: Int[Tensor, " b"], steps: Int[Tensor, " b"]
) -> Int[Tensor, " b"]:
    """Sample one token per row from logits after temperature and filters; temperature 0 takes the most likely.

    The seeds and steps of the rows are those of `sample_gumbel`.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    return (logits + sample_gumbel(seeds, steps, logits.shape[-1])).argmax(dim=-1)


def _mix(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Return the first number of each seed."""
    return mix_bits(x + GOLDEN)
