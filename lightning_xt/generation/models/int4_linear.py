"""Linear layer with 4-bit weights."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from lightning_xt.generation.models.int4_products import KernelMatrix, multiply_int4, pack_for_kernel
from lightning_xt.generation.models.int4_rounding import round_to_int4
from lightning_xt.generation.models.packed_products import fits_packed, multiply_packed, pack_matrix
from lightning_xt.generation.models.vector_products import is_one_vector, multiply_by_rows, wide_type
from lightning_xt.generation.models.weight_groups import GroupSize, resolve_group, split_groups

GROUP = 32
"""Numbers that share a scale and an offset by default."""
MAX_KERNEL_ROWS = 4
"""Rows up to which the int4 kernel is faster on a CPU than a packed bfloat16 matrix."""
MAX_ROWS = 64
"""Rows up to which the kernel is faster than unpacking the matrix for a product."""


class Int4Linear(nn.Module):
    """Linear layer, made from another, with a 4-bit matrix, and a scale and an offset per group of a row.

    Two adjacent weights share a byte. On a CPU there is also a packed bfloat16 copy, for products of several rows, and
    a copy in the order of torch's kernel, as on CUDA. The kernels serve groups of 32, their multiples, and whole rows;
    other groups are unpacked for each product. The layer works on the device where it was made.

    Args:
        linear: the layer as trained.
        group_size: adjacent numbers of a row that share a scale; the last group of a row may be smaller. None = 32.
    """

    def __init__(self, linear: nn.Linear, group_size: GroupSize | None = None) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.height, self.width = weight.shape
        self.group = resolve_group(group_size or GROUP, self.width)
        rounded = round_to_int4(split_groups(weight, self.group))
        kernel = pack_for_kernel(rounded)
        self.codes: Tensor
        self.scale: Tensor
        self.offset: Tensor
        self.register_buffer("codes", _pack_pairs(rounded.codes.flatten(1)))
        self.register_buffer("scale", rounded.scale)
        self.register_buffer("offset", rounded.offset)
        self.kernel_codes: Tensor | None
        self.kernel_scales: Tensor | None
        self.register_buffer("kernel_codes", kernel and kernel.packed, persistent=False)
        self.register_buffer("kernel_scales", kernel and kernel.scales, persistent=False)
        self._kernel_group, self._kernel_width = (kernel.group, kernel.width) if kernel else (0, 0)
        self.packed: Tensor | None
        self.register_buffer("packed", pack_matrix(self.weight), persistent=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(torch.bfloat16))

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The rounded matrix."""
        return self._unpack(torch.float32).to(self.scale.dtype)

    def _unpack(self, dtype: torch.dtype) -> Float[Tensor, "out in"]:
        """Return the rounded matrix in a type of at least float32."""
        pairs = torch.stack((self.codes & 15, self.codes >> 4), dim=-1).flatten(1)
        codes = pairs[:, : self.scale.shape[1] * self.group].unflatten(1, (-1, self.group))
        scale, offset = self.scale.to(dtype)[:, :, None], self.offset.to(dtype)[:, :, None]
        return ((codes.to(dtype) - 8) * scale + offset).flatten(1)[:, : self.width]

    def forward(self, x: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        if self.kernel_codes is not None and self.kernel_scales is not None and self._is_for_kernel(x):
            matrix = KernelMatrix(self.kernel_codes, self.kernel_scales, self._kernel_group, self._kernel_width)
            out = multiply_int4(x, matrix, self.height)
        elif is_one_vector(x):
            out = multiply_by_rows(self._unpack(wide_type(x)), x).to(x.dtype)
        elif self.packed is not None and fits_packed(x, self.scale):
            return multiply_packed(x, self.packed, self.bias)
        else:
            out = functional.linear(x, self.weight.to(x.dtype))
        return out if self.bias is None else out + self.bias

    def _is_for_kernel(self, x: Tensor) -> bool:
        most = MAX_ROWS if self.packed is None else MAX_KERNEL_ROWS
        return not x.requires_grad and x.numel() <= most * x.shape[-1]


def _pack_pairs(codes: UInt8[Tensor, "o i"]) -> UInt8[Tensor, "o p"]:
    """Put two adjacent numbers into a byte, the first into its lower half."""
    codes = functional.pad(codes, (0, codes.shape[1] % 2))
    return codes[:, ::2] | codes[:, 1::2] << 4
