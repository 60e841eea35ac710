"""Placements: the places of norms, recorded while a model runs."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from catalogue import VOCAB, decoder
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm
from lightning_xt.nn.placements.base import Placement
from lightning_xt.nn.placements.hybrid_norm import HybridNorm
from lightning_xt.nn.placements.layer_norm_scaling import LayerNormScaling
from lightning_xt.nn.placements.no_norm import NoNorm
from lightning_xt.nn.placements.peri_norm import PeriNorm
from lightning_xt.nn.placements.post_norm import PostNorm
from lightning_xt.nn.placements.pre_and_post_norm import PreAndPostNorm
from lightning_xt.nn.placements.pre_norm import PreNorm
from lightning_xt.nn.placements.res_post_norm import ResPostNorm
from lightning_xt.nn.placements.sandwich_norm import SandwichNorm

ORDERS = {
    PreNorm: "norm attention add norm feedforward add norm",
    PostNorm: "attention add norm feedforward add norm",
    SandwichNorm: "norm attention norm add norm feedforward norm add norm",
    PeriNorm: "norm norm attention norm add norm feedforward norm add norm",
    PreAndPostNorm: "norm attention add norm norm feedforward add norm",
    LayerNormScaling: "norm attention add norm feedforward add norm",
    HybridNorm: "attention add norm feedforward add norm",
    NoNorm: "attention add feedforward add",
    ResPostNorm: "attention norm add feedforward norm add norm",
}


class Plain(Norm):
    """Norm that returns its input, so that only the order of calls matters."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()

    def forward(self, x: Tensor, inputs: Inputs) -> Tensor:
        return x


def record(module: nn.Module, method: str, word: str, words: list[str]) -> None:
    original: Callable[..., object] = getattr(module, method)

    def call_and_record(*args: object, **options: object) -> object:
        words.append(word)
        return original(*args, **options)

    setattr(module, method, call_and_record)


@pytest.mark.parametrize("placement", ORDERS)
def test_order_of_operations(placement: type[Placement]) -> None:
    model = decoder(depth=1, norm=Plain, placement=placement)
    words: list[str] = []
    for module in model.modules():
        if isinstance(module, Plain):
            record(module, "forward", "norm", words)
    for name, sublayer in model.stack.sublayers.items():
        record(sublayer.branch, "forward", name.removeprefix("0_"), words)
        record(sublayer.residual, "write", "add", words)
    model(torch.randint(0, VOCAB, (2, 7)))
    assert " ".join(words) == ORDERS[placement]


@pytest.mark.parametrize("placement", ORDERS)
def test_every_norm_has_a_separate_gain(placement: type[Placement]) -> None:
    model = decoder(depth=1, placement=placement)
    gains = [p for name, p in model.named_parameters() if name.endswith("gain")]
    assert len(gains) == ORDERS[placement].split().count("norm")


def test_one_sublayer_by_hand() -> None:
    """With a norm that doubles, each placement reads, writes and closes as its formula says."""

    class Double(Plain):
        def forward(self, x: Tensor, inputs: Inputs) -> Tensor:
            return 2 * x

    x, shape = torch.tensor([[[3.0]]]), LayerShape(dim=1)
    expected = {PreNorm: (6.0, 3.0, 3.0), PostNorm: (3.0, 3.0, 6.0), SandwichNorm: (6.0, 6.0, 3.0)}
    expected[PeriNorm] = expected[SandwichNorm]
    expected |= {
        ResPostNorm: (3.0, 6.0, 3.0),
        PreAndPostNorm: (6.0, 3.0, 6.0),
        HybridNorm: (3.0, 3.0, 6.0),
        NoNorm: (3.0, 3.0, 3.0),
    }
    for placement, values in expected.items():
        made = placement(shape, Double)
        assert (
            tuple(
                step(x, Inputs()).item()
                for step in (made.normalize_input, made.normalize_output, made.normalize_stream)
            )
            == values
        )


def test_hybrid_norm_leaves_the_stream_after_feedforwards() -> None:
    made = HybridNorm(LayerShape(dim=1, kind="feedforward"), Plain)
    assert [made.norm_before, made.norm_after, made.norm_stream] == [None, None, None]


def test_layer_norm_scaling_divides_by_the_root_of_the_layer() -> None:
    x = torch.tensor([[[3.0]]])
    made = [LayerNormScaling(LayerShape(dim=1, layer=layer, depth=4), Plain) for layer in range(4)]
    scaled = [each.normalize_input(x, Inputs()).item() for each in made]
    assert scaled == pytest.approx([3.0, 3 / 2**0.5, 3 / 3**0.5, 1.5])


def test_pre_norm_without_the_norm_at_the_end() -> None:
    model = decoder(depth=1, placement=partial(PreNorm, final_norm=False))
    assert model.stack.output_norm is None
    assert decoder(depth=1).stack.output_norm is not None
