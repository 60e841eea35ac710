"""4-bit and groupwise weights: their rounding, its errors, and the products of each kernel."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from lightning_xt.generation.models import int4_linear
from lightning_xt.generation.models.int4_linear import Int4Linear
from lightning_xt.generation.models.int8_linear import Int8Linear
from lightning_xt.generation.models.weight_groups import GroupSize, split_groups

SHAPES = pytest.mark.parametrize(("wide", "high"), [(13, 7), (32, 5), (64, 33), (100, 17), (1, 3)])
GROUPS = pytest.mark.parametrize("group_size", [None, "row", 64, 16, 5])


def bfloat16(x: float) -> float:
    return float(torch.tensor(x, dtype=torch.float64).bfloat16())


def naive_int4(group: list[float]) -> tuple[list[int], float, float]:
    """Round one group by the formula: 15 steps from the least weight to the largest, around their middle."""
    low, high = min(group), max(group)
    scale = bfloat16(max((high - low) / 15, 1e-12))
    offset = bfloat16((low + high + scale) / 2)
    return [min(15, max(0, round((x - offset) / scale + 8))) for x in group], scale, offset


def read_codes(layer: Int4Linear) -> Tensor:
    """Unpack the bytes: the lower half comes first."""
    pairs = [[code for byte in row for code in (byte % 16, byte // 16)] for row in layer.codes.tolist()]
    return torch.tensor(pairs)[:, : layer.width]


@pytest.mark.parametrize(("wide", "high"), [(13, 7), (1, 3), (64, 5), (100, 3)])
@GROUPS
def test_rounds_as_the_formula_says(wide: int, high: int, group_size: GroupSize | None) -> None:
    linear = nn.Linear(wide, high, bias=False)
    layer = Int4Linear(linear, group_size)
    size = min({None: 32, "row": wide}.get(group_size, group_size), wide)
    for number, row in enumerate(linear.weight.detach().double().tolist()):
        for place, first in enumerate(range(0, wide, size)):
            codes, scale, offset = naive_int4(row[first : first + size])
            assert float(layer.scale[number, place]) == scale and float(layer.offset[number, place]) == offset
            assert read_codes(layer)[number, first : first + size].tolist() == codes
            expected = torch.tensor([(code - 8) * scale + offset for code in codes]).bfloat16()
            torch.testing.assert_close(layer.weight[number, first : first + size], expected, rtol=2**-7, atol=1e-6)
    assert layer.scale.shape == (high, -(-wide // size))


@GROUPS
def test_no_weight_is_further_than_half_a_step(group_size: GroupSize | None) -> None:
    layer = Int4Linear(linear := nn.Linear(96, 11), group_size)
    groups = split_groups(linear.weight.detach().double(), layer.group)
    scale, offset = layer.scale.double()[..., None], layer.offset.double()[..., None]
    codes = split_groups(read_codes(layer).double(), layer.group)
    error = ((codes - 8) * scale + offset - groups).abs()
    inner = (codes > 0) & (codes < 15)
    assert bool((error <= scale * 0.5000001)[inner].all())
    # At both ends scale and offset add half of the last of their 8 bits.
    assert bool((error <= scale * (0.5 + 8 * 2**-8) + offset.abs() * 2**-8).all())
    assert float((error / scale).median()) < 0.3


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_equal_weights_stay_what_they_are(value: float) -> None:
    linear = nn.Linear(40, 3)
    nn.init.constant_(linear.weight, value)
    for kind in (Int4Linear, Int8Linear):
        rounded = kind(linear, 32).weight.double()
        assert (rounded - value).abs().max() <= abs(value) * 2**-7 + 1e-11


def test_a_partial_group_is_rounded_as_a_row() -> None:
    """The last 8 of 40 weights are rounded as those of a matrix 8 wide."""
    linear, last = nn.Linear(40, 6, bias=False), nn.Linear(8, 6, bias=False)
    with torch.no_grad():
        last.weight.copy_(linear.weight[:, 32:])
    for kind in (Int4Linear, Int8Linear):
        assert torch.equal(kind(linear, 32).weight[:, 32:], kind(last, "row").weight)


@pytest.mark.parametrize("kind", [Int4Linear, Int8Linear])
@SHAPES
@GROUPS
@pytest.mark.parametrize("rows", [1, 3, 70])
@torch.no_grad()
def test_every_kernel_multiplies_by_the_rounded_matrix(
    kind: type, wide: int, high: int, group_size: GroupSize | None, rows: int
) -> None:
    """The kernel, the packed copy and the unpacked matrix agree, for any width and number of rows."""
    layer, x = kind(nn.Linear(wide, high), group_size), torch.randn(rows, wide).bfloat16()
    expected = x.double() @ layer.weight.double().T + layer.bias.double()
    shaped = layer(x.view(1, rows, 1, wide))
    assert shaped.shape == (1, rows, 1, high)
    torch.testing.assert_close(shaped.view(rows, high), layer(x), rtol=2**-6, atol=2**-6)
    copies = {name: getattr(layer, name) for name in ("packed", "kernel_codes") if hasattr(layer, name)}
    # With one of its copies alone, and with none.
    for kept in (*copies, None):
        for name, tensor in copies.items():
            setattr(layer, name, tensor if name == kept else None)
        out = layer(x)
        assert out.dtype == torch.bfloat16 and out.shape == (rows, high)
        torch.testing.assert_close(out.double(), expected, rtol=2**-6, atol=2**-5)


@torch.no_grad()
def test_few_rows_use_the_kernel_and_many_the_packed_copy() -> None:
    layer = Int4Linear(nn.Linear(64, 16))
    assert layer.kernel_codes is not None
    with patch.object(int4_linear, "multiply_int4", side_effect=AssertionError("kernel")):
        with pytest.raises(AssertionError, match="kernel"):
            layer(torch.randn(int4_linear.MAX_KERNEL_ROWS, 64).bfloat16())
        if layer.packed is not None:
            layer(torch.randn(int4_linear.MAX_KERNEL_ROWS + 1, 64).bfloat16())
        # The kernel has no gradients.
        x = torch.randn(1, 64).bfloat16().requires_grad_()
        with torch.enable_grad():
            layer(x).sum().backward()
    expected = layer.weight.float().sum(dim=0)
    torch.testing.assert_close(x.grad.float()[0], expected, rtol=2**-6, atol=2**-5)


@pytest.mark.parametrize(("wide", "high"), [(13, 7), (32, 5), (64, 1)])
@pytest.mark.parametrize("group_size", [1, 5, 16, 31])
def test_int8_rounds_each_group_by_its_largest(wide: int, high: int, group_size: int) -> None:
    linear = nn.Linear(wide, high, bias=False)
    layer = Int8Linear(linear, group_size)
    for number, row in enumerate(linear.weight.detach().double().tolist()):
        for place, first in enumerate(range(0, wide, group_size)):
            group = row[first : first + group_size]
            scale = bfloat16(max(map(abs, group)) / 127)
            assert float(layer.scale.view(high, -1)[number, place]) == scale
            expected = [max(-127, min(127, round(x / scale))) for x in group]
            assert layer.rounded[number, first : first + group_size].tolist() == expected
