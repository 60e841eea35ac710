"""Weight formats for fast decoding.

A decode step reads every weight once, and does little else.

    float32     unchanged
    bfloat16    half the bytes; activations are rounded too
    int8        a quarter of the bytes: each row of a matrix is rounded to 255 levels, the rest is bfloat16

Torch's products of few rows leave much of a CPU unused. There matrices are kept twice: as they are, for products with
one vector in a compiled step, and packed, for all others (`packed_products`); those of int8 are packed as bfloat16.
"""

import copy
from dataclasses import replace
from typing import Literal, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.models.packed_products import fits_packed, multiply_packed, pack_matrix
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.nn.adapters.layer_replacement import merge_adapters

Weights = Literal["float32", "bfloat16", "int8"]
Network = TypeVar("Network", bound=nn.Module)
MAX_KERNEL_ROWS = 8
"""Rows up to which the int8 kernel is faster on a CPU than a packed bfloat16 matrix."""


class RowLinear(nn.Module):
    """Linear layer, made from another, with a packed copy of its matrix for decoding on a CPU.

    A compiled step computes the product with one vector row by row. The weights may not change afterwards.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.packed: Tensor | None
        self.register_buffer("packed", pack_matrix(linear.weight), persistent=False)

    def forward(self, x: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        if _is_one_vector(x):
            out = _multiply_by_rows(self.weight, x).to(x.dtype)
            return out if self.bias is None else out + self.bias
        if self.packed is None or not fits_packed(x, self.weight):
            return functional.linear(x, self.weight, self.bias)
        product: Tensor = multiply_packed(x, self.packed, self.bias)
        return product


class Int8Linear(nn.Module):
    """Linear layer, made from another, with an int8 matrix and a scale per row.

    On a CPU it also keeps the int8 numbers as a packed bfloat16 matrix, for products of several rows.
    Dettmers et al., 2022 (rounding by the largest of each row). https://arxiv.org/abs/2208.07339
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        # Rounded to bfloat16 before the division, so that it matches the product.
        scale = (weight.abs().amax(dim=1).clamp(min=1e-12) / 127).to(torch.bfloat16)
        self.rounded: Tensor
        self.scale: Tensor
        self.register_buffer("rounded", (weight / scale[:, None].float()).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale)
        self.packed: Tensor | None
        self.register_buffer("packed", pack_matrix(self.rounded.to(torch.bfloat16)), persistent=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(torch.bfloat16))

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The rounded matrix."""
        return self.rounded.to(self.scale.dtype) * self.scale[:, None]

    def forward(self, x: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        if _is_one_vector(x):
            out = (_multiply_by_rows(self.rounded, x) * self.scale).to(x.dtype)
        elif self._is_for_kernel(x):
            rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16).contiguous()
            out = torch._weight_int8pack_mm(rows, self.rounded, self.scale).view(*x.shape[:-1], -1)
        elif self.packed is not None and fits_packed(x, self.scale):
            out = multiply_packed(x, self.packed, None) * self.scale
        else:
            out = functional.linear(x, self.rounded.to(x.dtype)) * self.scale
        return out if self.bias is None else out + self.bias

    def _is_for_kernel(self, x: Tensor) -> bool:
        # The kernel reads beyond the end of rows of other widths.
        return x.device.type == "cpu" and x.shape[-1] % 32 == 0 and x.numel() <= MAX_KERNEL_ROWS * x.shape[-1]


def convert_weights(network: Network, weights: Weights) -> Network:
    """Copy a network for decoding, in evaluation mode, to a format of weights; ValueError if the format is unknown.

    Adapters are merged before weights are rounded. The weights of the copy may not change.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"weights is {weights!r}; it must be one of {', '.join(get_args(Weights))}")
    merged = merge_adapters(network)
    network = (copy.deepcopy(network) if merged is network else merged).eval().requires_grad_(False)
    if weights == "bfloat16":
        network = network.to(torch.bfloat16)
    replacement = Int8Linear if weights == "int8" else RowLinear
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, replacement(child))
    # After int8 rounding, so that matrices are rounded from full precision.
    return network.to(torch.bfloat16) if weights == "int8" else network


@torch.no_grad()
def measure_loss(model: Autoregressive, tokens: Int[Tensor, "1 n"], inputs: Inputs | None = None) -> float:
    """Return the mean loss in nats of all but the first of at least two tokens, by a model in evaluation mode.

    No token sees later ones, a visible prefix neither.
    """
    inputs = None if inputs is None else replace(inputs, visible_prefix=None)
    logits = model(tokens[:, :-1], inputs=inputs)[0].float()
    return float(functional.cross_entropy(logits, tokens[0, 1:]))


def _is_one_vector(x: Tensor) -> bool:
    """Return whether a compiled step on a CPU multiplies one vector."""
    return torch.compiler.is_compiling() and x.device.type == "cpu" and x.numel() == x.shape[-1]


def _multiply_by_rows(matrix: Tensor, x: Tensor) -> Tensor:
    """Return the product of a matrix and a vector (*1 i), in at least float32; to be compiled."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    vector = x.flatten().to(dtype)
    # Otherwise the compiler recomputes the vector for each row, including a GELU before it.
    vector = vector.as_strided(vector.shape, vector.stride())
    return (matrix.to(dtype) * vector).sum(dim=-1).view(*x.shape[:-1], -1)
