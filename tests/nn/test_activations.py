"""Activations at a few numbers."""

import math

import pytest
import torch

from lightning_xt.nn.activations.gelu import GELU
from lightning_xt.nn.activations.leaky_relu_squared import LeakyReLUSquared
from lightning_xt.nn.activations.relu import ReLU
from lightning_xt.nn.activations.relu_squared import ReLUSquared
from lightning_xt.nn.activations.silu import SiLU
from lightning_xt.nn.activations.solu import SoLU

POINTS = [-2.0, -0.5, 0.0, 0.5, 3.0]


def test_gelu_is_x_times_the_normal_distribution_function() -> None:
    expected = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in POINTS]
    assert GELU()(torch.tensor(POINTS)).tolist() == pytest.approx(expected, abs=1e-6)


def test_gelu_by_tanh_is_the_formula_of_the_paper() -> None:
    expected = [x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) for x in POINTS]
    found = GELU(approximate="tanh")(torch.tensor(POINTS))
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert 1e-4 < (found - GELU()(torch.tensor(POINTS))).abs().max() < 1e-3


def test_gelu_refuses_an_unknown_approximation(no_shape_checks: None) -> None:
    with pytest.raises(ValueError, match="activation: GELU has approximate 'sigmoid', which must be one of none, tanh"):
        GELU(approximate="sigmoid")


def test_silu_is_x_times_its_sigmoid() -> None:
    expected = [x / (1 + math.exp(-x)) for x in POINTS]
    assert SiLU()(torch.tensor(POINTS)).tolist() == pytest.approx(expected, abs=1e-6)


def test_relu_squared() -> None:
    assert ReLUSquared()(torch.tensor(POINTS)).tolist() == [0.0, 0.0, 0.0, 0.25, 9.0]


def test_relu() -> None:
    assert ReLU()(torch.tensor(POINTS)).tolist() == [0.0, 0.0, 0.0, 0.5, 3.0]


def test_leaky_relu_squared() -> None:
    assert LeakyReLUSquared()(torch.tensor(POINTS)).tolist() == [1.0, 0.0625, 0.0, 0.25, 9.0]
    assert LeakyReLUSquared(negative_slope=0.1)(torch.tensor([-2.0])).item() == pytest.approx(0.04)


@pytest.mark.parametrize("slope", [0.0, 1.5])
def test_leaky_relu_squared_refuses_an_invalid_slope(slope: float) -> None:
    with pytest.raises(ValueError, match=f"activation: LeakyReLUSquared has negative_slope {slope}, which must be"):
        LeakyReLUSquared(negative_slope=slope)


def test_solu_is_x_times_the_softmax_over_the_features() -> None:
    total = sum(math.exp(x) for x in POINTS)
    expected = [x * math.exp(x) / total for x in POINTS]
    assert SoLU()(torch.tensor([POINTS, POINTS]))[1].tolist() == pytest.approx(expected, abs=1e-6)
