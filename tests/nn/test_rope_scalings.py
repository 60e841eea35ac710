"""Frequencies of each rotary scaling, one pair at a time as the papers state them."""

import math
from functools import partial
from typing import Any

import pytest
import torch

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.rope_scalings.base import RopeScalingFactory
from lightning_xt.nn.rope_scalings.linear_scaling import LinearScaling
from lightning_xt.nn.rope_scalings.llama3_scaling import Llama3Scaling
from lightning_xt.nn.rope_scalings.ntk_scaling import NTKScaling
from lightning_xt.nn.rope_scalings.yarn_scaling import YarnScaling

DIM, BASE = 64, 10_000.0
PLAIN = [BASE ** (-2 * k / DIM) for k in range(DIM // 2)]


def rotary(scaling: RopeScalingFactory | None, dim: int = DIM) -> Rotary:
    return Rotary(AttentionShape(dim=dim, heads=1, kv_heads=1, dim_head=dim), base=BASE, rope_scaling=scaling)


def frequencies(scaling: RopeScalingFactory | None) -> list[float]:
    return rotary(scaling).frequencies.tolist()


def test_unscaled() -> None:
    assert frequencies(None) == pytest.approx(PLAIN)
    assert rotary(None).gain == 1


@pytest.mark.parametrize("scaling", [LinearScaling, NTKScaling, YarnScaling, Llama3Scaling])
def test_a_factor_of_one_changes_nothing(scaling: RopeScalingFactory) -> None:
    scaling = partial(scaling, factor=1.0)
    assert frequencies(scaling) == pytest.approx(PLAIN)
    assert rotary(scaling).gain == 1


def test_linear() -> None:
    assert frequencies(partial(LinearScaling, factor=4.0)) == pytest.approx([f / 4 for f in PLAIN])


def test_ntk_raises_the_base() -> None:
    base = BASE * 8.0 ** (DIM / (DIM - 2))
    scaled = frequencies(partial(NTKScaling, factor=8.0))
    assert scaled == pytest.approx([base ** (-2 * k / DIM) for k in range(DIM // 2)])
    assert scaled[0] == PLAIN[0] and scaled[-1] == pytest.approx(PLAIN[-1] / 8)


def test_ntk_leaves_a_single_pair_alone() -> None:
    assert rotary(partial(NTKScaling, factor=8.0), dim=2).frequencies.tolist() == [1.0]


def test_yarn_ramps_in_turns_within_the_original_length() -> None:
    factor, length, alpha, beta = 16.0, 4096, 1.0, 32.0
    expected, bands = [], set()
    for f in PLAIN:
        turns = length / (2 * math.pi / f)
        if turns < alpha:
            ramp, band = 0.0, "slow"
        elif turns > beta:
            ramp, band = 1.0, "fast"
        else:
            ramp, band = (turns - alpha) / (beta - alpha), "between"
        bands.add(band)
        expected.append((1 - ramp) * f / factor + ramp * f)
    assert bands == {"slow", "between", "fast"}
    assert frequencies(partial(YarnScaling, factor=factor, original_length=length)) == pytest.approx(expected)


def test_yarn_ramps_over_pairs_as_its_released_code_does() -> None:
    # Pair k of 32 turns 4096 * 10,000^(-k / 32) / 2 pi times: 32 turns at k = 10.472, one turn at 22.513.
    factor, length = 16.0, 4096
    fast, slow = (32 * math.log(length / (2 * math.pi * turns)) / math.log(BASE) for turns in (32.0, 1.0))
    assert (fast, slow) == pytest.approx((10.472, 22.513), abs=1e-3)
    keep = [1 - min(max((k - 10) / (23 - 10), 0.0), 1.0) for k in range(32)]
    expected = [(1 - kept) * f / factor + kept * f for f, kept in zip(PLAIN, keep, strict=True)]
    found = frequencies(partial(YarnScaling, factor=factor, original_length=length, ramp="pairs"))
    assert found == pytest.approx(expected)
    assert found != pytest.approx(frequencies(partial(YarnScaling, factor=factor, original_length=length)))


def test_yarn_ramps_over_pairs_within_one_pair_and_at_both_ends() -> None:
    # All pairs turn more often than 32 times: all are kept.
    assert frequencies(partial(YarnScaling, factor=4.0, original_length=10**8, ramp="pairs")) == pytest.approx(PLAIN)
    # Of 3 pairs, 1.5 turns are at k = -0.15 and one turn at -0.02: the ramp starts and ends at pair 0.
    scaling = YarnScaling(factor=4.0, original_length=6, beta_fast=1.5, ramp="pairs")
    assert scaling(torch.ones(3), BASE).tolist() == [1.0, 0.25, 0.25]


def test_yarn_takes_a_gain() -> None:
    assert rotary(partial(YarnScaling, factor=16.0, gain=1.5)).gain == 1.5


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"gain": 0.0}, "gain 0.0, which must be above 0"),
        ({"ramp": "dimensions"}, "ramp 'dimensions', which must be one of turns, pairs"),
        ({"ramp": "pairs", "beta_slow": 0.0}, "beta_slow 0.0, which must be above 0"),
    ],
)
def test_yarn_refuses_options_outside_their_range(options: dict[str, Any], rule: str, no_shape_checks: None) -> None:
    with pytest.raises(ValueError, match=f"rope_scaling: YarnScaling has {rule}"):
        YarnScaling(factor=2.0, **options)


def test_yarn_over_pairs_needs_a_base_above_one() -> None:
    scaling = YarnScaling(factor=2.0, ramp="pairs")
    with pytest.raises(ValueError, match=r"has ramp 'pairs', for which the base must be above 1, but it is 1.0"):
        scaling(torch.ones(3), 1.0)


def test_yarn_sharpens_scores_by_the_square_of_its_gain() -> None:
    scaled = rotary(partial(YarnScaling, factor=16.0))
    assert scaled.gain == pytest.approx(0.1 * math.log(16) + 1)
    x, at = torch.randn(1, 1, 3, DIM), torch.tensor([[0, 5, 9]])
    q, k = scaled.rotate_queries(x, at), scaled.rotate_keys(x, at)
    product, plain = (q * k).sum(-1), x.square().sum(-1)
    torch.testing.assert_close(product, 1.2772588722239781**2 * plain)


def test_llama3_has_three_bands() -> None:
    factor, length, low, high = 8.0, 2048, 1.0, 4.0
    expected, bands = [], set()
    for f in PLAIN:
        wavelength = 2 * math.pi / f
        if wavelength < length / high:
            scaled, band = f, "kept"
        elif wavelength > length / low:
            scaled, band = f / factor, "slowed"
        else:
            smooth = (length / wavelength - low) / (high - low)
            scaled, band = (1 - smooth) * f / factor + smooth * f, "between"
        bands.add(band)
        expected.append(scaled)
    assert bands == {"kept", "between", "slowed"}
    assert frequencies(partial(Llama3Scaling, factor=factor)) == pytest.approx(expected)


def test_llama3_reads_its_options() -> None:
    # One pair of frequency 1 has wavelength 6.28: original_length 8 makes 1.273 turns, halfway from 0.773 to 1.773.
    scaling = Llama3Scaling(
        factor=5.0, original_length=8, low_frequency_factor=8 / 6.283185 - 0.5, high_frequency_factor=8 / 6.283185 + 0.5
    )
    assert scaling(torch.ones(1), BASE).item() == pytest.approx(0.5 * 0.2 + 0.5)
