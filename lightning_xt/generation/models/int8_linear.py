"""Linear layer with int8 weights."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lightning_xt.generation.models.packed_products import fits_packed, multiply_packed, pack_matrix
from lightning_xt.generation.models.vector_products import is_one_vector, multiply_by_rows, wide_type
from lightning_xt.generation.models.weight_groups import GroupSize, resolve_group, split_groups

MAX_KERNEL_ROWS = 8
"""Rows up to which the int8 kernel is faster on a CPU than a packed bfloat16 matrix."""


class Int8Linear(nn.Module):
    """Linear layer, made from another, with an int8 matrix and a scale per row, or per group of a row.

    On a CPU it also keeps a packed bfloat16 matrix, for products of several rows: of the int8 numbers, or of the
    weights if there are several groups.
    Dettmers et al., 2022 (rounding by the largest of each row). https://arxiv.org/abs/2208.07339

    Args:
        linear: the layer as trained.
        group_size: adjacent numbers of a row that share a scale; the last group of a row may be smaller. None = row.
    """

    def __init__(self, linear: nn.Linear, group_size: GroupSize | None = None) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        self.group = resolve_group(group_size or "row", weight.shape[1])
        groups = split_groups(weight, self.group)
        # Rounded to bfloat16 before the division, so that it matches the product.
        scale = (groups.abs().amax(dim=2, keepdim=True).clamp(min=1e-12) / 127).to(torch.bfloat16)
        rounded = (groups / scale.float()).round().clamp(-127, 127).to(torch.int8)
        self.rounded: Tensor
        self.scale: Tensor
        self.register_buffer("rounded", rounded.flatten(1)[:, : weight.shape[1]].contiguous())
        self.register_buffer("scale", scale[:, 0, 0] if self._per_row else scale[:, :, 0])
        multiplied = self.rounded.to(torch.bfloat16) if self._per_row else self.weight
        self.packed: Tensor | None
        self.register_buffer("packed", pack_matrix(multiplied), persistent=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(torch.bfloat16))

    @property
    def _per_row(self) -> bool:
        """True if a row has one scale."""
        return self.group == self.rounded.shape[1]

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The rounded matrix."""
        return self._expand(self.scale.dtype)

    def _expand(self, dtype: torch.dtype) -> Float[Tensor, "out in"]:
        """Return the rounded matrix in a type."""
        if self._per_row:
            return self.rounded.to(dtype) * self.scale[:, None].to(dtype)
        width = self.rounded.shape[1]
        scale = self.scale.to(dtype)[:, :, None].expand(-1, -1, self.group).flatten(1)
        return self.rounded.to(dtype) * scale[:, :width]

    def forward(self, x: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        out = self._multiply_rows(x) if self._per_row else self._multiply_groups(x)
        return out if self.bias is None else out + self.bias

    def _multiply_rows(self, x: Tensor) -> Tensor:
        if is_one_vector(x):
            return (multiply_by_rows(self.rounded, x) * self.scale).to(x.dtype)
        if self._is_for_kernel(x):
            rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16).contiguous()
            product: Tensor = torch._weight_int8pack_mm(rows, self.rounded, self.scale)
            return product.view(*x.shape[:-1], -1)
        if self.packed is not None and fits_packed(x, self.scale):
            return multiply_packed(x, self.packed, None) * self.scale
        if _multiplies_half(x):
            # Products of whole numbers, not scaled yet, exceed the range of float16.
            return functional.linear(x, self._expand(x.dtype))
        return functional.linear(x, self.rounded.to(x.dtype)) * self.scale

    def _multiply_groups(self, x: Tensor) -> Tensor:
        if is_one_vector(x):
            return multiply_by_rows(self._expand(wide_type(x)), x).to(x.dtype)
        if self.packed is not None and fits_packed(x, self.scale):
            return multiply_packed(x, self.packed, None)
        return functional.linear(x, self.weight.to(x.dtype))

    def _is_for_kernel(self, x: Tensor) -> bool:
        # The kernel reads beyond the end of rows of other widths.
        return x.device.type == "cpu" and x.shape[-1] % 32 == 0 and x.numel() <= MAX_KERNEL_ROWS * x.shape[-1]


def _multiplies_half(x: Tensor) -> bool:
    """Return True if a product with these vectors is one in float16."""
    device = x.device.type
    chosen = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return chosen == torch.float16
