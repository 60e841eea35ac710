"""Output mods by hand."""

import math

import pytest
import torch

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_mods.head_scale import HeadScale
from lightning_xt.nn.output_mods.value_gate import ValueGate

SHAPE = AttentionShape(dim=3, heads=2, kv_heads=1, dim_head=5)


def test_head_scale() -> None:
    scale = HeadScale(SHAPE)
    out, x = torch.ones(1, 2, 3, 5), torch.randn(1, 3, 3)
    assert torch.equal(scale(out, x, None), out)
    with torch.no_grad():
        scale.scale.copy_(torch.tensor([2.0, -3.0]).view(2, 1, 1))
    assert scale(out, x, None)[0, :, 1, 4].tolist() == [2.0, -3.0]


def test_value_gate_is_a_sigmoid_of_the_token_per_feature() -> None:
    gate = ValueGate(SHAPE, bias_init=0.3).double()
    out = torch.randn(2, 2, 7, 5, dtype=torch.float64)
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    gated = gate(out, x, None)
    for b in range(2):
        for h in range(2):
            for i in range(7):
                for e in range(5):
                    row = gate.to_gate.weight[5 * h + e]
                    logit = 0.3 + sum((row[f] * x[b, i, f]).item() for f in range(3))
                    expected = out[b, h, i, e].item() / (1 + math.exp(-logit))
                    assert gated[b, h, i, e].item() == pytest.approx(expected)


def test_value_gate_starts_nearly_open() -> None:
    gate = ValueGate(SHAPE)
    assert gate(torch.ones(1, 2, 1, 5), torch.zeros(1, 1, 3), None)[0, 1, 0, 3].item() == pytest.approx(
        0.8807970779778823
    )
