"""Output projections by hand."""

import torch

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_projections.attention_on_attention import AttentionOnAttention
from lightning_xt.nn.output_projections.normed_output import NormedOutput

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
def test_normed_output_norms_all_heads_together() -> None:
    part = NormedOutput(SHAPE)
    part.norm.gain.copy_(torch.tensor([2.0, 1.0, 1.0, 1.0]))
    part.to_out.weight.copy_(torch.eye(3, 4))
    out = part(torch.tensor([[[3.0, 1.0, 1.0, 3.0]]]), torch.zeros(1, 1, 3), Inputs())
    # Mean 2, variance 1.
    torch.testing.assert_close(out, torch.tensor([[[2.0, -1.0, -1.0]]]))
