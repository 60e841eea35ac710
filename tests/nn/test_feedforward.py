"""Feedforwards one token and one feature at a time."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.activations.relu_squared import ReLUSquared
from lightning_xt.nn.feedforward.gated_mlp import GatedMLP
from lightning_xt.nn.feedforward.geglu import GEGLU
from lightning_xt.nn.feedforward.glu import GLU
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.feedforward.reglu import ReGLU
from lightning_xt.nn.feedforward.situ_glu import SiTUGLU
from lightning_xt.nn.feedforward.swiglu import SwiGLU

SHAPE = LayerShape(dim=5)


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def affine(weight: Tensor, bias: Tensor | None, x: list[float]) -> list[float]:
    return [
        sum(w * f for w, f in zip(row.tolist(), x, strict=True)) + (0.0 if bias is None else bias[k].item())
        for k, row in enumerate(weight)
    ]


@pytest.mark.parametrize("bias", [False, True])
def test_mlp(bias: bool) -> None:
    mlp = MLP(SHAPE, hidden_dim=7, activation=ReLUSquared, bias=bias).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    out = mlp(x)
    for b in range(2):
        for n in range(3):
            hidden = affine(mlp.to_hidden.weight, mlp.to_hidden.bias, x[b, n].tolist())
            expected = affine(mlp.to_out.weight, mlp.to_out.bias, [max(f, 0) ** 2 for f in hidden])
            assert out[b, n].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("variant", "bend"), [(GEGLU, gelu), (SwiGLU, silu), (ReGLU, lambda x: max(x, 0.0))])
def test_gated(variant: type[GLU], bend: Callable[[float], float], bias: bool) -> None:
    glu = variant(SHAPE, hidden_dim=7, bias=bias).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    out = glu(x)
    for b in range(2):
        for n in range(3):
            both = affine(glu.to_hidden.weight, glu.to_hidden.bias, x[b, n].tolist())
            gated = [bend(gate) * value for gate, value in zip(both[:7], both[7:], strict=True)]
            expected = affine(glu.to_out.weight, glu.to_out.bias, gated)
            assert out[b, n].tolist() == pytest.approx(expected)


def test_default_widths() -> None:
    assert MLP(SHAPE).to_hidden.out_features == 20
    # 8/3 of 512 is 1365.33, and 1368 = 171 * 8.
    assert SwiGLU(LayerShape(dim=512)).to_out.in_features == 1368
    assert GEGLU(SHAPE).to_out.in_features == 16
    mlp, glu = (sum(p.numel() for p in v(LayerShape(dim=768)).parameters()) for v in (MLP, SwiGLU))
    assert mlp == glu


@pytest.mark.parametrize("variant", [MLP, GEGLU, SwiGLU])
def test_dropout_drops_hidden_features_in_training_only(variant: type[MLP | GLU]) -> None:
    layer = variant(SHAPE, hidden_dim=1, dropout=0.5)
    x = torch.randn(1, 1000, 5)
    kept = layer.eval()(x)
    dropped = layer.train()(x)
    zero = (dropped == 0).all(-1)
    assert 400 < int(zero.sum()) < 600
    torch.testing.assert_close(dropped[~zero], 2 * kept[~zero])


def build_identity(variant: type[GLU], **options: object) -> GLU:
    """Return a gated feedforward of one feature, whose gate is x, the gated half -2 x and the output the product."""
    layer = variant(LayerShape(dim=1), hidden_dim=1, **options)
    with torch.no_grad():
        layer.to_hidden.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        layer.to_out.weight.fill_(1.0)
    return layer


def test_a_gated_mlp_has_any_activation() -> None:
    layer = build_identity(GatedMLP, activation=ReLUSquared)
    assert layer(torch.tensor([[[3.0], [-3.0]]])).flatten().tolist() == [9.0 * -6.0, 0.0]


def test_situ_glu_bounds_both_factors() -> None:
    layer = build_identity(SiTUGLU)
    for x in (0.5, -1.0, 30.0):
        expected = 4 * math.tanh(x / 4) / (1 + math.exp(-x)) * 25 * math.tanh(-2 * x / 25)
        assert layer(torch.tensor([[[x]]])).item() == pytest.approx(expected, rel=1e-5)
    assert layer(torch.tensor([[[1e6]]])).item() == pytest.approx(-100.0)


def test_a_hidden_gain_multiplies_the_gated_features() -> None:
    layer = build_identity(ReGLU, hidden_gain=True)
    assert layer(torch.tensor([[[3.0]]])).item() == -18.0
    with torch.no_grad():
        layer.gain.fill_(0.5)
    assert layer(torch.tensor([[[3.0]]])).item() == -9.0


def test_an_mlp_bounds_its_features_before_the_activation() -> None:
    layer = MLP(LayerShape(dim=1), hidden_dim=1, activation=ReLUSquared, hidden_cap=2.0)
    with torch.no_grad():
        layer.to_hidden.weight.fill_(1.0)
        layer.to_out.weight.fill_(1.0)
    assert layer(torch.tensor([[[3.0]]])).item() == pytest.approx((2 * math.tanh(1.5)) ** 2)


@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda: SiTUGLU(SHAPE, gate_cap=0.0), "SiTUGLU has gate_cap 0.0, which must be above 0"),
        (lambda: SiTUGLU(SHAPE, gated_cap=-1.0), "SiTUGLU has gated_cap -1.0, which must be above 0"),
        (lambda: MLP(SHAPE, hidden_cap=0.0), "MLP has hidden_cap 0.0, which must be above 0"),
        (lambda: GatedMLP(SHAPE, hidden_dim=0), "GatedMLP has hidden_dim 0, which must be at least 1"),
    ],
)
def test_options_outside_their_range_are_refused(build: Callable[[], object], rule: str) -> None:
    with pytest.raises(ValueError, match=f"feedforward: {rule}"):
        build()
