from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.adapted_matrix import AdaptedMatrix
from lightning_xt.core.autocast import disable_autocast
from lightning_xt.core.wide_floats import to_float64
from lightning_xt.nn.adapters.adapted_layer import AdaptedLayer


class LowRankLinear(nn.Linear, AdaptedLayer, AdaptedMatrix):
    """Linear map, made from another, to which the product of two narrow matrices is added.

    The matrix of the other map stays the parameter `weight`. Parts that read the matrix of a map instead of calling it
    get the merged one from `get_matrix`.
    A map that holds several, one below the other, has two narrow matrices for each: those of `lora_A` lie one below the
    other, and so do those of `lora_B`.

    Args:
        linear: the other map, whose parameters are taken over.
        rows: rows of each map in its matrix.
        rank: rows of `lora_A` and columns of `lora_B` for each map.
        scale: factor of the product.
        dropout: fraction of the features dropped before `lora_A` in training.
    """

    adapter_parameters: ClassVar = ("lora_A", "lora_B")

    def __init__(
        self, linear: nn.Linear, rows: Sequence[int], rank: int, scale: int | float, dropout: int | float
    ) -> None:
        # The constructor of nn.Linear would allocate another matrix.
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # Parameters stay the same objects, which other parts may share.
        self.weight = linear.weight
        self.register_parameter("bias", linear.bias)
        self.rows, self.rank, self.scale = tuple(rows), rank, scale
        self.lora_A = nn.Parameter(linear.weight.new_empty(len(self.rows) * rank, self.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_zeros(self.out_features, rank))
        # Both are matrices one below the other, which optimizers of matrices split.
        self.stacked_rows = {"lora_A": (rank,) * len(self.rows), "lora_B": self.rows}
        self.dropout = nn.Dropout(dropout)
        self.train(linear.training)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the narrow matrices, not the base: the product is zero, and `lora_A` as PEFT has it."""
        bound = self.in_features**-0.5
        nn.init.uniform_(self.lora_A, -bound, bound)
        nn.init.zeros_(self.lora_B)

    def forward(self, input: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        out = F.linear(input, self.weight, self.bias)
        narrow = F.linear(self.dropout(input), self.lora_A).split(self.rank, dim=-1)
        wide = [F.linear(x, b) for x, b in zip(narrow, self.lora_B.split(self.rows), strict=True)]
        return out + self.scale * (wide[0] if len(wide) == 1 else torch.cat(wide, dim=-1))

    @property
    def merged_weight(self) -> Float[Tensor, "out in"]:
        """The matrix with the product."""
        with disable_autocast(self.weight):
            return self.weight + self.compute_change(self.weight.dtype)

    def compute_change(self, dtype: torch.dtype) -> Float[Tensor, "out in"]:
        """Compute what is added to the matrix, in a type of numbers."""
        a, b = (to_float64(t) if dtype == torch.float64 else t.to(dtype) for t in (self.lora_A, self.lora_B))
        down, up = a.split(self.rank), b.split(self.rows)
        return self.scale * torch.cat([b @ a for a, b in zip(down, up, strict=True)])

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return a plain linear map with the merged matrix, which is added up in float64."""
        merged = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        exact = to_float64(self.weight) + self.compute_change(torch.float64)
        merged.weight = nn.Parameter(exact.to(self.weight.device, self.weight.dtype))
        merged.register_parameter("bias", self.bias)
        return merged.train(self.training)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}, scale={self.scale:g}, maps={len(self.rows)}"
