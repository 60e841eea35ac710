"""Norms by hand."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from catalogue import VOCAB, attention, decoder, randomise

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape, LayerShape
from lightning_xt.nn.norms.adaptive_layer_norm import AdaptiveLayerNorm
from lightning_xt.nn.norms.adaptive_rms_norm import AdaptiveRMSNorm
from lightning_xt.nn.norms.base import Norm
from lightning_xt.nn.norms.derf import Derf
from lightning_xt.nn.norms.dynamic_tanh import DynamicTanh
from lightning_xt.nn.norms.layer_norm import LayerNorm
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.norms.scale_norm import ScaleNorm
from lightning_xt.nn.norms.simple_rms_norm import SimpleRMSNorm
from lightning_xt.nn.norms.unit_norm import UnitNorm


def test_rms_norm_divides_by_the_root_mean_square() -> None:
    # Mean square of 1, 5, 7 is 25, so the divisor is 5.
    norm = RMSNorm(LayerShape(dim=3)).double()
    with torch.no_grad():
        norm.gain.copy_(torch.tensor([1.0, 2.0, -1.0]))
    out = norm(torch.tensor([[1.0, 5.0, 7.0]], dtype=torch.float64), Inputs())
    assert out.tolist()[0] == pytest.approx([0.2, 2.0, -1.4], abs=1e-6)


def test_rms_norm_adds_eps_to_the_mean_square() -> None:
    out = RMSNorm(LayerShape(dim=2), eps=7.0)(torch.tensor([[1.0, -1.0]]), Inputs())
    assert out.tolist()[0] == pytest.approx([8**-0.5, -(8**-0.5)])


def test_a_zero_centered_gain_is_the_weight_plus_one() -> None:
    norm = RMSNorm(LayerShape(dim=3), zero_centered=True).double()
    assert norm.gain.tolist() == [0.0, 0.0, 0.0]
    with torch.no_grad():
        norm.gain.copy_(torch.tensor([0.0, 1.0, -2.0]))
    out = norm(torch.tensor([[1.0, 5.0, 7.0]], dtype=torch.float64), Inputs())
    assert out.tolist()[0] == pytest.approx([0.2, 2.0, -1.4], abs=1e-6)


def test_a_zero_centered_gain_is_multiplied_in_float32() -> None:
    """Bfloat16 has no number between 1 and 1.0078."""
    norm = RMSNorm(LayerShape(dim=2), zero_centered=True).bfloat16()
    with torch.no_grad():
        norm.gain.fill_(0.0035)
    x = torch.tensor([[3.0, 4.0]], dtype=torch.bfloat16)
    expected = (x.float() * (x.float().square().mean() + 1e-6).rsqrt() * (1 + norm.gain.float())).bfloat16()
    assert norm(x, Inputs()).tolist() == expected.tolist()
    assert norm(x, Inputs()).tolist() != RMSNorm(LayerShape(dim=2)).bfloat16()(x, Inputs()).tolist()


def test_layer_norm_gives_mean_zero_and_variance_one() -> None:
    # Mean 3, variance (4 + 1 + 9) / 3.
    norm = LayerNorm(LayerShape(dim=3), bias=True).double()
    with torch.no_grad():
        norm.gain.fill_(2.0)
        norm.bias.copy_(torch.tensor([0.0, 10.0, 0.0]))
    out = norm(torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.float64), Inputs())
    deviation = (14 / 3) ** 0.5
    assert out.tolist()[0] == pytest.approx([-4 / deviation, 10 - 2 / deviation, 6 / deviation], abs=1e-6)


def test_layer_norm_has_no_bias_by_default() -> None:
    assert [name for name, _ in LayerNorm(LayerShape(dim=3)).named_parameters()] == ["gain"]


def test_layer_norm_adds_eps_to_the_variance() -> None:
    out = LayerNorm(LayerShape(dim=2), eps=3.0)(torch.tensor([[4.0, 6.0]]), Inputs())
    assert out.tolist()[0] == pytest.approx([-0.5, 0.5])


def test_an_adaptive_norm_scales_by_the_condition_of_the_row() -> None:
    norm = AdaptiveRMSNorm(LayerShape(dim=3), condition_dim=2, eps=0.0)
    x = torch.tensor([[[3.0, 4.0, 0.0]], [[3.0, 4.0, 0.0]]])
    condition = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    plain = x / (25 / 3) ** 0.5
    torch.testing.assert_close(norm(x, Inputs(condition=condition)), plain)
    with torch.no_grad():
        norm.to_gain.copy_(torch.tensor([[1.0, 0.0, 5.0], [0.0, 2.0, 5.0]]))
    scaled = norm(x, Inputs(condition=condition))
    torch.testing.assert_close(scaled, plain * torch.tensor([[[2.0, 1.0, 6.0]], [[1.0, 5.0, 11.0]]]))


def test_an_adaptive_norm_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match=r"^norm: AdaptiveRMSNorm has condition_dim 0, which must be at least 1$"):
        AdaptiveRMSNorm(LayerShape(dim=3), condition_dim=0)
    with pytest.raises(ValueError, match=re.escape("AdaptiveRMSNorm needs Inputs(condition=...)")):
        AdaptiveRMSNorm(LayerShape(dim=3), condition_dim=2)(torch.ones(1, 1, 3), Inputs())


def test_an_adaptive_norm_takes_a_condition_of_each_token() -> None:
    norm = AdaptiveLayerNorm(LayerShape(dim=2), condition_dim=1, eps=0.0)
    with torch.no_grad():
        norm.to_gain.copy_(torch.tensor([[1.0, 2.0]]))
        norm.to_shift.copy_(torch.tensor([[0.0, 10.0]]))
    # Of 1 and 3, mean 2 and variance 1.
    x, condition = torch.tensor([[[1.0, 3.0], [1.0, 3.0]]]), torch.tensor([[[0.0], [2.0]]])
    expected = torch.tensor([[[-1.0, 1.0], [-3.0, 25.0]]])
    torch.testing.assert_close(norm(x, Inputs(condition=condition)), expected)
    streams = x[:, :, None].expand(1, 2, 3, 2)
    torch.testing.assert_close(norm(streams, Inputs(condition=condition)), expected[:, :, None].expand(1, 2, 3, 2))
    torch.testing.assert_close(norm(x[:, 1:], Inputs(condition=condition[:, 1])), expected[:, 1:])


def test_an_adaptive_norm_of_queries_finds_their_tokens() -> None:
    shape = AttentionShape(dim=2, heads=3, kv_heads=3, dim_head=2)
    norm = AdaptiveRMSNorm(shape, condition_dim=1, eps=0.0)
    torch.nn.init.ones_(norm.to_gain)
    q, condition = torch.ones(1, 3, 5, 2), torch.arange(5.0).view(1, 5, 1)
    expected = (1 + torch.arange(5.0)).view(1, 1, 5, 1).expand(1, 3, 5, 2)
    torch.testing.assert_close(norm(q, Inputs(condition=condition)), expected)
    with pytest.raises(ValueError, match=r"^norm: AdaptiveRMSNorm has a condition for 5 tokens, but 4 vectors to ch"):
        norm(q[:, :, :4], Inputs(condition=condition))


def test_an_adaptive_norm_reads_its_condition_through_an_mlp() -> None:
    norm = AdaptiveRMSNorm(LayerShape(dim=1), condition_dim=2, eps=0.0, mlp_expansion=1.5)
    assert norm.to_hidden.weight.shape == (3, 2)
    for parameter in (norm.to_hidden.weight, norm.to_gain):
        torch.nn.init.ones_(parameter)
    torch.nn.init.zeros_(norm.to_hidden.bias)
    out = norm(torch.ones(1, 1, 1), Inputs(condition=torch.tensor([[1.0, 1.0]])))
    # Three features, each 2 sigmoid(2).
    assert out.item() == pytest.approx(1 + 3 * 2 / (1 + math.exp(-2)))
    with pytest.raises(ValueError, match=r"^norm: AdaptiveRMSNorm has mlp_expansion 0.0, which must be above 0$"):
        AdaptiveRMSNorm(LayerShape(dim=1), condition_dim=2, mlp_expansion=0.0)


def test_simple_rms_norm_has_no_gain() -> None:
    norm = SimpleRMSNorm(LayerShape(dim=3), eps=0.0)
    assert list(norm.parameters()) == []
    assert norm(torch.tensor([[1.0, 5.0, 7.0]]), Inputs()).tolist()[0] == pytest.approx([0.2, 1.0, 1.4])


def test_scale_norm_gives_every_vector_one_length() -> None:
    norm = ScaleNorm(LayerShape(dim=4), eps=0.0)
    x = torch.tensor([[1.0, 1.0, 1.0, 1.0], [3.0, 0.0, 4.0, 0.0]])
    assert norm(x, Inputs()).norm(dim=-1).tolist() == pytest.approx([2.0, 2.0])
    torch.nn.init.constant_(norm.length, 10.0)
    assert norm(x, Inputs())[1].tolist() == pytest.approx([6.0, 0.0, 8.0, 0.0])


@pytest.mark.parametrize(("kind", "function"), [(DynamicTanh, math.tanh), (Derf, math.erf)])
def test_a_norm_without_statistics_squashes_each_feature(kind: type[Norm], function: Callable[[float], float]) -> None:
    norm = kind(LayerShape(dim=2), init_alpha=0.25)
    assert norm(torch.tensor([[2.0, -3.0]]), Inputs())[0].tolist() == pytest.approx([function(0.5), function(-0.75)])
    with torch.no_grad():
        norm.gain[1], norm.shift[1] = 2.0, 5.0
        if isinstance(norm, Derf):
            norm.offset += 0.25
    inside = -0.75 + 0.25 * isinstance(norm, Derf)
    assert norm(torch.tensor([[2.0, -3.0]]), Inputs())[0, 1].item() == pytest.approx(2 * function(inside) + 5)


@pytest.mark.parametrize("gain", ["fixed", "scalar", "feature"])
def test_unit_norm_gives_attention_a_cosine_times_the_scale(gain: str) -> None:
    norm = UnitNorm(LayerShape(dim=2), scale=7.0, gain=gain, eps=0.0)
    q, k = norm(torch.tensor([[3.0, 4.0], [10.0, 0.0]]), Inputs())
    # The cosine is 0.6; attention divides by the root of the width.
    assert (q @ k).item() / 2**0.5 == pytest.approx(7.0 * 0.6, rel=1e-6)
    assert [p.numel() for p in norm.parameters()] == {"fixed": [], "scalar": [1], "feature": [2]}[gain]


def test_unit_norm_of_groups() -> None:
    norm = UnitNorm(LayerShape(dim=4), scale=0.5, gain="fixed", groups=2, eps=0.0)
    # The start is the root of 0.5 * 2.
    out = norm(torch.tensor([[3.0, 4.0, 0.0, 9.0]]), Inputs())
    assert out[0].tolist() == pytest.approx([0.6, 0.8, 0.0, 1.0])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"groups": 3}, "groups 3, which must divide the width of 4"),
        ({"groups": 0}, "groups 0, which must be at least 1"),
        ({"scale": 0.0}, "scale 0.0, which must be above 0"),
        ({"gain": "none"}, "gain 'none', which must be one of fixed, scalar, feature"),
    ],
    ids=lambda each: str(each),
)
def test_unit_norm_refuses_invalid_options(options: dict[str, Any], problem: str, no_shape_checks: None) -> None:
    with pytest.raises(ValueError, match=f"^norm: UnitNorm has {re.escape(problem)}$"):
        UnitNorm(LayerShape(dim=4), **options)


@torch.no_grad()
def test_a_condition_of_each_token_is_decoded_as_in_one_forward() -> None:
    adaptive = partial(AdaptiveRMSNorm, condition_dim=3)
    model = randomise(lambda: decoder(norm=adaptive, attention=attention(qk_norm=adaptive, kv_heads=2)))
    tokens, condition = torch.randint(0, VOCAB, (2, 7)), torch.randn(2, 7, 3, dtype=torch.float64)
    expected = model(tokens, inputs=Inputs(condition=condition))
    cache, pieces = model.new_cache(2, 7), (slice(0, 4), slice(4, 5), slice(5, 7))
    found = [model(tokens[:, each], inputs=Inputs(condition=condition[:, each]), cache=cache) for each in pieces]
    torch.testing.assert_close(torch.cat(found, dim=1), expected)
    # One condition for all tokens of a row is the same as the row's.
    same = condition[:, :1].expand(-1, 7, -1)
    by_row = model(tokens, inputs=Inputs(condition=condition[:, 0]))
    torch.testing.assert_close(model(tokens, inputs=Inputs(condition=same)), by_row)
