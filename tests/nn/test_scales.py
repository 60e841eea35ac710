"""Scales by hand, and their place in a sublayer."""

import pytest
import torch
from catalogue import decoder

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.placements.sandwich_norm import SandwichNorm
from lightning_xt.nn.scales.adaptive_layer_scale import AdaptiveLayerScale
from lightning_xt.nn.scales.layer_scale import LayerScale

SHAPE = LayerShape(dim=3)


def test_layer_scale_multiplies_each_feature() -> None:
    scale = LayerScale(SHAPE, init=0.5)
    with torch.no_grad():
        scale.gain[2] = -2.0
    assert scale(torch.tensor([[[2.0, 4.0, 6.0]]]), Inputs()).tolist() == [[[1.0, 2.0, -12.0]]]


def test_a_scale_stands_between_the_norm_of_the_output_and_the_residual() -> None:
    """After SandwichNorm the output has a mean square of 1, so what is written has that of the gain."""
    model, tokens = decoder(scale=LayerScale, placement=SandwichNorm, depth=1), torch.tensor([[1, 2, 3]])
    read: list[torch.Tensor] = []
    for sublayer in model.stack.sublayers.values():
        sublayer.branch.register_forward_pre_hook(lambda module, args: read.append(args[0]))
        sublayer.residual.write = lambda stream, out: read.append(out) or stream + out
    model(tokens)
    for written in read[1::2]:
        torch.testing.assert_close(written.square().mean(dim=-1), torch.full((1, 3), 0.01), rtol=1e-3, atol=1e-6)


def test_adaptive_layer_scale_makes_the_gain_from_the_condition() -> None:
    scale = AdaptiveLayerScale(SHAPE, condition_dim=2)
    out, inputs = torch.ones(2, 1, 3), Inputs(condition=torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    assert scale(out, inputs).abs().max() == 0
    with torch.no_grad():
        scale.to_gain.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]]))
        scale.bias.fill_(0.5)
    assert scale(out, inputs).tolist() == [[[1.5, 6.5, 0.5]], [[0.5, 3.5, 0.5]]]
    with pytest.raises(
        ValueError, match=r"^scale: AdaptiveLayerScale has condition_dim 2, but the condition is 5 wide;"
    ):
        scale(out, Inputs(condition=torch.ones(2, 5)))
