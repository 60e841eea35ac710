"""Models of x-transformers, built from text and computed in float64."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

with warnings.catch_warnings():
    # It compiles a function by torch.jit when it is imported.
    warnings.simplefilter("ignore")
    import x_transformers
    import x_transformers.x_transformers
    from x_transformers.attend import Attend

NAMES = {**vars(x_transformers.x_transformers), **vars(x_transformers), "nn": nn}


@contextmanager
def in_float64() -> Iterator[None]:
    """Let x-transformers compute in float64 throughout: it casts some numbers to float32 on the way."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with patch.object(Tensor, "float", Tensor.double):
            yield
    finally:
        torch.set_default_dtype(before)


def build(text: str, seed: int = 0, zeros: Sequence[str] = ()) -> nn.Module:
    """Build a model from its constructor as text, with random weights, none of them zero or one.

    Args:
        text: constructor, as a user writes it.
        seed: seed of the weights.
        zeros: ends of the names of weights that are zero.
    """
    with in_float64():
        model: nn.Module = eval(text, dict(NAMES)).double()
    for part in model.modules():
        if isinstance(part, Attend) and isinstance(part.attn_fn, partial) and part.attn_fn.func is F.softmax:
            # Its softmax is in float32 for inputs of any type.
            part.attn_fn = partial(F.softmax, dim=part.attn_fn.keywords["dim"])
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            width = parameter.shape[-1] if parameter.dim() > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=draws, dtype=torch.float64) * width**-0.5)
            if name.endswith(tuple(zeros)):
                parameter.zero_()
    return model
