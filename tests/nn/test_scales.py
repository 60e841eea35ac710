"""Scales by hand, and their place in a sublayer."""

from functools import partial

import pytest
import torch
from catalogue import decoder, randomise

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.placements.sandwich_norm import SandwichNorm
from lightning_xt.nn.scales.adaptive_layer_scale import AdaptiveLayerScale
from lightning_xt.nn.scales.layer_scale import LayerScale
from lightning_xt.nn.scales.stochastic_depth import StochasticDepth

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


def test_stochastic_depth_drops_rows_more_often_in_later_layers() -> None:
    made = [StochasticDepth(LayerShape(dim=3, layer=layer, depth=4), last_fraction=0.4) for layer in range(4)]
    assert [each.fraction for each in made] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    out = made[3](torch.ones(20_000, 2, 3), Inputs())
    # Whole rows are dropped, and the mean stays.
    assert (out == out[:, :1, :1]).all()
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.6])
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)


def test_stochastic_depth_drops_nothing_in_evaluation() -> None:
    out = torch.ones(9, 2, 3)
    assert StochasticDepth(SHAPE, last_fraction=0.9).eval()(out, Inputs()) is out
    with pytest.raises(
        ValueError, match=r"^scale: StochasticDepth has last_fraction 1.0, which must be at least 0 and b"
    ):
        StochasticDepth(SHAPE, last_fraction=1.0)


def test_weights_of_a_sublayer_that_all_rows_drop_have_gradients_of_zero() -> None:
    """DistributedDataParallel waits for the gradient of every weight, whatever rows another process draws."""
    model, tokens = decoder(scale=partial(StochasticDepth, last_fraction=0.999999)).train(), torch.tensor([[1, 2, 3]])
    torch.manual_seed(0)
    model(tokens).square().sum().backward()
    last = dict(model.stack.sublayers["1_attention"].named_parameters())
    assert all(weight.grad is not None and weight.grad.abs().max() == 0 for weight in last.values())


def test_stochastic_depth_draws_by_the_seed() -> None:
    model, tokens = randomise(partial(decoder, scale=partial(StochasticDepth, last_fraction=0.5))), torch.zeros(8, 3)
    model.train()

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model(tokens.long())

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(model.eval()(tokens.long()), model(tokens.long()))
