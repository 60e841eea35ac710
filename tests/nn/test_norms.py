"""Norms by hand."""

import re

import pytest
import torch

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.adaptive_rms_norm import AdaptiveRMSNorm
from lightning_xt.nn.norms.layer_norm import LayerNorm
from lightning_xt.nn.norms.rms_norm import RMSNorm


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
