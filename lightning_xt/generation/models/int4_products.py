"""Products with 4-bit matrices by torch's kernels, which read rows in bfloat16."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lightning_xt.generation.models.int4_rounding import Int4Groups

KERNEL_GROUPS = (256, 128, 64, 32)
"""Numbers of a group that the kernels know."""
ROW_BLOCKS = {"cpu": 16, "cuda": 8}
"""Rows of a matrix that the kernels read at once, by device."""


class KernelMatrix(NamedTuple):
    """A matrix of 4-bit numbers in the order of a device's kernel, with a scale and an offset for each group."""

    packed: Tensor
    scales: Tensor
    group: int
    """Numbers of a group."""
    width: int
    """Numbers of a row, padding included."""


def pack_for_kernel(groups: Int4Groups) -> KernelMatrix | None:
    """Pack a matrix for the kernel of its device; None if there is none, or none for such groups.

    Larger groups are cut into those that the kernel knows, and a row of a single group is padded.
    """
    codes, device = groups.codes, groups.codes.device
    if device.type not in ROW_BLOCKS or (device.type == "cuda" and not _has_cuda_kernel(device)):
        return None
    if codes.shape[1] == 1:
        codes = functional.pad(codes, (0, -codes.shape[2] % KERNEL_GROUPS[-1]))
    group = next((each for each in KERNEL_GROUPS if codes.shape[2] % each == 0), None)
    if group is None:
        return None
    scales = torch.stack((groups.scale, groups.offset), dim=-1).repeat_interleave(codes.shape[2] // group, dim=1)
    rows = -len(codes) % ROW_BLOCKS[device.type]
    flat, scales = functional.pad(codes.flatten(1), (0, 0, 0, rows)), functional.pad(scales, (0, 0, 0, 0, 0, rows))
    packed = _pack_on_cpu(flat) if device.type == "cpu" else _pack_on_cuda(flat)
    return KernelMatrix(packed, scales.transpose(0, 1).contiguous(), group, flat.shape[1])


def multiply_int4(x: Float[Tensor, "*b in"], matrix: KernelMatrix, out: int) -> Float[Tensor, "*b out"]:
    """Return the product of rows, rounded to bfloat16, with a matrix of `out` rows; without gradients."""
    rows = functional.pad(x, (0, matrix.width - x.shape[-1])) if x.shape[-1] < matrix.width else x
    rows = rows.reshape(-1, matrix.width).to(torch.bfloat16).contiguous()
    if x.device.type == "cpu":
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, matrix.packed, matrix.group, matrix.scales)
    else:
        product = torch.ops.aten._weight_int4pack_mm(rows, matrix.packed, matrix.group, matrix.scales)
    return product[:, :out].reshape(*x.shape[:-1], out)


def _has_cuda_kernel(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def _pack_on_cpu(codes: Tensor) -> Tensor:
    # The second argument is one of the kernel on CUDA.
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), 1)
    return packed


def _pack_on_cuda(codes: Tensor) -> Tensor:
    pairs = (codes[:, ::2] << 4 | codes[:, 1::2]).contiguous()
    # Tiles of 16 columns, as many side by side as the width permits.
    tiles = next(each for each in (8, 4, 2) if codes.shape[1] % (16 * each) == 0)
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs, tiles)
    return packed
