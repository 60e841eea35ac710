"""Scales by hand, and their place in a sublayer."""

import torch
from catalogue import decoder

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.placements.sandwich_norm import SandwichNorm
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
