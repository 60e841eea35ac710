"""Weights in the form in which decoding reads them fastest.

A step of decoding reads every weight once, and does little else.

    float32     as it is, columns stored together on a CPU, whose product of a matrix and one vector is faster so
    bfloat16    half the bytes; what is computed is rounded too
    int8        a quarter of the bytes: each row of a matrix rounded to 255 steps, the rest in bfloat16
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


class Int8Linear(nn.Module):
    """A linear map whose matrix is kept in int8, each row with a scale of its own.

    Dettmers et al., 2022 (rounding by the largest of each row). https://arxiv.org/abs/2208.07339

    Args:
        linear: what it stands for.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        whole = linear.weight.detach().float()
        scale = whole.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.rounded: Tensor
        self.scale: Tensor
        self.register_buffer("rounded", (whole / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(torch.bfloat16))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(torch.bfloat16))

    @property
    def weight(self) -> Float[Tensor, "o i"]:
        """The matrix that is multiplied by, rounded."""
        return self.rounded.to(self.scale.dtype) * self.scale[:, None]

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        rows = x.reshape(-1, x.shape[-1])
        # Rows of other widths the kernel reads beyond their end.
        if x.device.type == "cpu" and rows.shape[0] <= FEW and rows.shape[1] % 32 == 0:
            out = torch._weight_int8pack_mm(rows.to(torch.bfloat16).contiguous(), self.rounded, self.scale)
            out = out.view(*x.shape[:-1], -1)
        else:
            out = functional.linear(x, self.rounded.to(x.dtype)) * self.scale
        return out if self.bias is None else out + self.bias


def with_weights(network: Network, weights: Weights) -> Network:
    """A copy of a network for decoding, in evaluation mode.

    Args:
        network: what is copied.
        weights: their form.

    Raises:
        ValueError: there is no such form.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"weights is {weights!r}; it must be one of {', '.join(get_args(Weights))}")
    network = copy.deepcopy(network).eval().requires_grad_(False)
    if weights == "float32":
        for module in network.modules():
            if isinstance(module, nn.Linear) and module.weight.device.type == "cpu":
                module.weight.data = module.weight.data.T.contiguous().T
        return network
    network = network.to(torch.bfloat16)
    if weights == "int8":
        for parent in list(network.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.Linear):
                    setattr(parent, name, Int8Linear(child))
    return network


@torch.no_grad()
def mean_loss(model: Autoregressive, tokens: Int[Tensor, "1 n"], inputs: Inputs | None = None) -> float:
    """Mean loss of each token of a text but the first, in nats: what other weights cost is the difference.

    Args:
        model: in evaluation mode.
        tokens: two at least.
        inputs: what the model needs beside tokens.
    """
    logits = model(tokens[:, :-1], inputs=inputs)[0].float()
    return float(functional.cross_entropy(logits, tokens[0, 1:]))
