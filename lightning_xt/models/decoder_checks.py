"""Checks of a decoder's options and inputs."""

from torch import Tensor

from lightning_xt.core.inputs import WHOLE_SEQUENCES, Inputs
from lightning_xt.system.option_checks import check_option


def refuse_training(gradient: Tensor) -> None:
    """Raise a ValueError; a hook on what a forward with a cache computed."""
    raise ValueError(
        "a cache is overwritten in place, so nothing can be trained through it; train without a cache, or decode under "
        "torch.no_grad()"
    )


def check_prefix(inputs: Inputs, dim: int) -> None:
    """Raise a ValueError for a soft prefix of another width than `dim`, or with inputs that say nothing of it."""
    if inputs.prefix is not None and inputs.prefix.shape[-1] != dim:
        raise ValueError(
            f"Inputs(prefix=...) has vectors {inputs.prefix.shape[-1]} wide, but dim is {dim}; give both the same width"
        )
    for name in (*WHOLE_SEQUENCES, "types"):
        if getattr(inputs, name) is not None:
            raise ValueError(f"Inputs({name}=...) says nothing of soft tokens; omit it, or prefix")


def check_sizes(vocab_size: int, dim: int, depth: int, dropout: float) -> None:
    """Raise a ValueError for a size or a dropout of a decoder out of range."""
    for name, value, most in (("vocab_size", vocab_size, 2**31), ("dim", dim, 1_000_000), ("depth", depth, 10_000)):
        check_option("decoder", name, value, least=1, most=most)
    check_option("decoder", "dropout", dropout, least=0, below=1)
