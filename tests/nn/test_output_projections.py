"""Output projections by hand."""

import re

import pytest
import torch

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape, LayerShape
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.output_projections.attention_on_attention import AttentionOnAttention
from lightning_xt.nn.output_projections.biased_output import BiasedOutput
from lightning_xt.nn.output_projections.normed_output import NormedOutput
from lightning_xt.nn.output_projections.pair_difference import PairDifference

SHAPE = AttentionShape(dim=3, heads=2, kv_heads=2, dim_head=2)


@torch.no_grad()
def test_attention_on_attention_gates_information_by_a_sigmoid() -> None:
    part = AttentionOnAttention(SHAPE)
    joined, x = torch.randn(1, 5, 4), torch.randn(1, 5, 3)
    both = torch.cat((joined, x), dim=-1)
    weight = torch.cat((part.from_values.weight, part.from_input.weight), dim=1)
    bias = part.from_values.bias
    information = both @ weight[:3].T + bias[:3]
    gate = 1 / (1 + torch.exp(-(both @ weight[3:].T + bias[3:])))
    torch.testing.assert_close(part(joined, x, Inputs()), information * gate)
    part.from_values.weight.zero_()
    part.from_input.weight.zero_()
    bias.copy_(torch.tensor([4.0, -2.0, 6.0, 0.0, 0.0, 0.0]))
    assert part(joined, x, Inputs())[0, 0].tolist() == [2.0, -1.0, 3.0]


@torch.no_grad()
def test_a_biased_output_adds_its_bias_to_the_map() -> None:
    part = BiasedOutput(SHAPE)
    part.to_out.weight.copy_(torch.eye(3, 4))
    part.to_out.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    out = part(torch.tensor([[[3.0, 1.0, 4.0, 7.0]]]), torch.zeros(1, 1, 3), Inputs())
    assert out.tolist() == [[[3.5, 0.0, 6.0]]]


@torch.no_grad()
def test_normed_output_norms_all_heads_together() -> None:
    part = NormedOutput(SHAPE)
    part.norm.gain.copy_(torch.tensor([2.0, 1.0, 1.0, 1.0]))
    part.to_out.weight.copy_(torch.eye(3, 4))
    out = part(torch.tensor([[[3.0, 1.0, 1.0, 3.0]]]), torch.zeros(1, 1, 3), Inputs())
    # Mean 2, variance 1.
    torch.testing.assert_close(out, torch.tensor([[[2.0, -1.0, -1.0]]]))


@torch.no_grad()
def test_pairs_of_heads_are_subtracted() -> None:
    """Heads of one feature, 5 - 2 / 2 and 7 - 4 / 2: a gate of zeros is one half."""
    projection = PairDifference(AttentionShape(dim=3, heads=4, kv_heads=2, dim_head=1))
    projection.to_gate.weight.zero_()
    projection.to_out.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    out = projection(torch.tensor([[[5.0, 2.0, 7.0, 4.0]]]), torch.randn(1, 1, 3), Inputs())
    assert out.flatten().tolist() == [4, 5, 9]
    projection.to_gate.weight.copy_(torch.tensor([[100.0, 0.0, 0.0], [-100.0, 0.0, 0.0]]))
    out = projection(torch.tensor([[[5.0, 2.0, 7.0, 4.0]]]), torch.ones(1, 1, 3), Inputs())
    assert out.flatten().tolist() == [3, 7, 10]


def test_pairs_need_an_even_number_of_heads() -> None:
    said = "output_projection: PairDifference makes pairs of heads, so heads (3) must be even"
    with pytest.raises(ValueError, match=re.escape(said)):
        Attention(LayerShape(dim=6), heads=3, output_projection=PairDifference)
