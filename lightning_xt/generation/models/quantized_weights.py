"""Weights in the form in which decoding reads them fastest.

A step of decoding reads every weight once, and does little else.

    float32     as it is
    bfloat16    half the bytes; what is computed is rounded too
    int8        a quarter of the bytes: each row of a matrix rounded to 255 steps, the rest in bfloat16

Torch's products of a matrix and one vector leave much of a CPU's bandwidth unused. A compiled step multiplies and sums
row by row instead; one that is not compiled is faster where float32 is stored by columns.
"""

import copy
from typing import Literal, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.protocol import Autoregressive

Weights = Literal["float32", "bfloat16", "int8"]
Network = TypeVar("Network", bound=nn.Module)
FEW = 8
"""Rows up to which the kernel that multiplies by int8 is the faster way on a CPU."""


class RowLinear(nn.Module):
    """A linear map that a compiled step on a CPU multiplies one vector by, row by row.

    Args:
        linear: what it stands for.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        if not _one_vector(x):
            return functional.linear(x, self.weight, self.bias)
        out = _row_by_row(self.weight, x).to(x.dtype)
        return out if self.bias is None else out + self.bias


class Int8Linear(nn.Module):
    """A linear map whose matrix is kept in int8, each row with a scale of its own.

    Dettmers et al., 2022 (rounding by the largest of each row). https://arxiv.org/abs/2208.07339

    Args:
        linear: what it stands for.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        whole = linear.weight.detach().float()
        # Rounded before it is divided by.
        scale = (whole.abs().amax(dim=1).clamp(min=1e-12) / 127).to(torch.bfloat16)
        self.rounded: Tensor
        self.scale: Tensor
        self.register_buffer("rounded", (whole / scale[:, None].float()).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(torch.bfloat16))

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """The matrix that is multiplied by, rounded."""
        return self.rounded.to(self.scale.dtype) * self.scale[:, None]

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        if _one_vector(x):
            out = (_row_by_row(self.rounded, x) * self.scale).to(x.dtype)
            return out if self.bias is None else out + self.bias
        rows = x.reshape(-1, x.shape[-1])
        # Rows of other widths the kernel reads beyond their end.
        if x.device.type == "cpu" and rows.shape[0] <= FEW and rows.shape[1] % 32 == 0:
            out = torch._weight_int8pack_mm(rows.to(torch.bfloat16).contiguous(), self.rounded, self.scale)
            out = out.view(*x.shape[:-1], -1)
        else:
            out = functional.linear(x, self.rounded.to(x.dtype)) * self.scale
        return out if self.bias is None else out + self.bias


def convert_weights(network: Network, weights: Weights, *, compiled: bool = False) -> Network:
    """A copy of a network for decoding, in evaluation mode.

    Args:
        network: what is copied.
        weights: their form.
        compiled: whether steps are going to be compiled.

    Raises:
        ValueError: there is no such form.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"weights is {weights!r}; it must be one of {', '.join(get_args(Weights))}")
    network = copy.deepcopy(network).eval().requires_grad_(False)
    if weights == "bfloat16":
        network = network.to(torch.bfloat16)
    replacement = Int8Linear if weights == "int8" else RowLinear if compiled else _by_columns
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, replacement(child))
    # Matrices are rounded to int8 from what they were.
    return network.to(torch.bfloat16) if weights == "int8" else network


@torch.no_grad()
def measure_loss(model: Autoregressive, tokens: Int[Tensor, "1 n"], inputs: Inputs | None = None) -> float:
    """Mean loss of each token of a text but the first, in nats: what other weights cost is the difference.

    Args:
        model: in evaluation mode.
        tokens: two at least.
        inputs: what the model needs beside tokens.
    """
    logits = model(tokens[:, :-1], inputs=inputs)[0].float()
    return float(functional.cross_entropy(logits, tokens[0, 1:]))


def _by_columns(linear: nn.Linear) -> nn.Linear:
    """The same map; on a CPU a float32 matrix is stored column after column."""
    if linear.weight.device.type == "cpu" and linear.weight.dtype == torch.float32:
        linear.weight.data = linear.weight.data.T.contiguous().T
    return linear


def _one_vector(x: Tensor) -> bool:
    """Whether a compiled step on a CPU multiplies one vector."""
    return torch.compiler.is_compiling() and x.device.type == "cpu" and x.numel() == x.shape[-1]


def _row_by_row(matrix: Tensor, x: Tensor) -> Tensor:
    """The product of a matrix and a vector (*1 i), in float32 at least; to be compiled."""
    upcast = torch.promote_types(x.dtype, torch.float32)
    vector = x.flatten().to(upcast)
    # The compiler would else compute the vector anew for each row, a GELU and all.
    vector = vector.as_strided(vector.shape, vector.stride())
    return (matrix.to(upcast) * vector).sum(dim=-1).view(*x.shape[:-1], -1)
