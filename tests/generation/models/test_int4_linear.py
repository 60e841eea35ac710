"""4-bit and groupwise weights: their rounding, its errors, and the products of each kernel."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_xt.generation.models import int4_linear, int4_rounding
from lightning_xt.generation.models.int4_linear import Int4Linear
from lightning_xt.generation.models.int4_rounding import round_to_int4
from lightning_xt.generation.models.int8_linear import Int8Linear
from lightning_xt.generation.models.weight_groups import GroupSize, split_groups

SHAPES = pytest.mark.parametrize(("wide", "high"), [(13, 7), (32, 5), (64, 33), (100, 17), (1, 3)])
GROUPS = pytest.mark.parametrize("group_size", [None, "row", 64, 16, 5])


def bfloat16(x: float) -> float:
    return float(torch.tensor(x, dtype=torch.float64).bfloat16())


def naive_codes(row: np.ndarray, scale: float, offset: float) -> np.ndarray:
    return np.clip(np.round((row - offset) / scale + 8), 0, 15)


def naive_int4(group: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Round one group by the formula: three ranges, then three linear regressions of the weights on the codes."""

    def attempt(scale: float, offset: float) -> tuple[float, np.ndarray, float, float]:
        scale, offset = bfloat16(max(scale, 1e-12)), bfloat16(offset)
        codes = naive_codes(group, scale, offset)
        return float((((codes - 8) * scale + offset - group) ** 2).sum()), codes, scale, offset

    low, high = group.min(), group.max()
    step = (high - low) / 15
    best = min((attempt(f * step, (low + high) / 2 + f * step / 2) for f in (1, 0.9, 0.8)), key=lambda each: each[0])
    for _ in range(3):
        centred = best[1] - best[1].mean()
        slope = (centred * group).sum() / max((centred**2).sum(), 1e-12)
        best = min(best, attempt(slope, group.mean() - slope * (best[1] - 8).mean()), key=lambda each: each[0])
    return best[1:]


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
    rows = linear.weight.detach().double().numpy()
    for number, row in enumerate(rows):
        for place, first in enumerate(range(0, wide, size)):
            group = row[first : first + size]
            codes, scale, offset = naive_int4(group)
            assert float(layer.scale[number, place]) == scale and float(layer.offset[number, place]) == offset
            assert read_codes(layer)[number, first : first + size].tolist() == codes.tolist()
            expected = torch.tensor((codes - 8) * scale + offset).bfloat16()
            torch.testing.assert_close(layer.weight[number, first : first + size], expected, rtol=2**-7, atol=1e-6)
    assert layer.scale.shape == (high, -(-wide // size))


@GROUPS
def test_no_error_passes_half_a_step_but_at_the_ends(group_size: GroupSize | None) -> None:
    """A code is the nearest: only weights beyond the two last codes are further away than half a step."""
    layer = Int4Linear(linear := nn.Linear(96, 11), group_size)
    groups = split_groups(linear.weight.detach().double(), layer.group)
    scale, offset = layer.scale.double()[..., None], layer.offset.double()[..., None]
    codes = split_groups(read_codes(layer).double(), layer.group)
    error = ((codes - 8) * scale + offset - groups).abs()
    inner = (codes > 0) & (codes < 15)
    assert bool((error <= scale * 0.5000001)[inner].all())
    # A range is narrowed by a fifth at most, a tenth at each end, and a fit moves it a little; the offset is rounded.
    assert bool((error <= scale * (0.5 + 15 * 0.15) + groups.abs() * 2**-8).all())


def test_fitting_errs_less_than_the_extremes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    errors = {}
    for size in (32, 128):
        groups = split_groups(weight, size)
        counted = torch.ones_like(groups[0], dtype=torch.bool)
        for name, ranges, fits in (("extremes", (1.0,), 0), ("fitted", int4_rounding.NARROWED, int4_rounding.FITS)):
            monkeypatch.setattr(int4_rounding, "NARROWED", ranges)
            monkeypatch.setattr(int4_rounding, "FITS", fits)
            found = round_to_int4(groups, counted)
            rounded = (found.codes.float() - 8) * found.scale.float()[..., None] + found.offset.float()[..., None]
            errors[name, size] = float((rounded - groups).square().mean())
            monkeypatch.undo()
    # By a seventh in groups of 32; a normal distribution of 128 has wider tails.
    assert errors["fitted", 32] < 0.9 * errors["extremes", 32] and errors["fitted", 128] < errors["extremes", 128]


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_equal_weights_stay_what_they_are(value: float) -> None:
    linear = nn.Linear(40, 3)
    nn.init.constant_(linear.weight, value)
    for kind in (Int4Linear, Int8Linear):
        rounded = kind(linear, 32).weight.double()
        assert (rounded - value).abs().max() <= abs(value) * 2**-7


def test_a_partial_group_counts_its_own_weights_alone() -> None:
    """The last 8 of 40 weights are rounded as if they were a matrix of their own."""
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
