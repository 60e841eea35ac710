"""Initial values row by row of the table, on maps large enough to measure their standard deviation."""

import math
from functools import partial

import pytest
import torch
from catalogue import CASES, RECIPES, decoder, example
from torch import nn

from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.nn.initialization import initialize
from lightning_xt.nn.layouts.looped import Looped
from lightning_xt.objectives.next_token import NextToken

DIM, VOCAB = 192, 257


def build(**options: object) -> Decoder:
    options = {"depth": 3, "feedforward": partial(MLP, bias=True), **options}
    return Decoder(VOCAB, dim=DIM, attention=partial(Attention, heads=4, kv_heads=2), **options)


@pytest.mark.parametrize(("layout", "calls"), [({}, 6), ({"layout": partial(Looped, loops=3)}, 18)])
def test_standard_deviations(layout: dict[str, object], calls: int) -> None:
    model = build(**layout)
    rows = {
        "token_embedding": 0.02,
        "stack.sublayers.1_attention.branch.projection.to_qkv": 1 / math.sqrt(DIM),
        "stack.sublayers.1_attention.branch.to_out": 1 / math.sqrt(DIM * calls),
        "stack.sublayers.1_feedforward.branch.feedforward.to_hidden": 1 / math.sqrt(DIM),
        "stack.sublayers.1_feedforward.branch.feedforward.to_out": 1 / math.sqrt(4 * DIM * calls),
    }
    for name, expected in rows.items():
        # Part by part, as one weight holds the maps to queries, keys and values.
        for weight in model.get_submodule(name).weight.split(DIM):
            assert weight.std().item() == pytest.approx(expected, rel=0.02), name
            assert abs(weight.mean().item()) < expected / 30, name
    assert model.head.to_logits.weight.abs().max() == 0
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 6 and all(bias.abs().max() == 0 for bias in biases)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_first_loss_is_the_log_of_the_vocabulary(seed: int) -> None:
    torch.manual_seed(seed)
    model = build()
    shape = ObjectiveShape(vocab_size=VOCAB, token_embedding=model.token_embedding, head=model.head)
    loss = NextToken(shape)(model, torch.randint(0, VOCAB, (2, 12)))
    assert loss.mean.item() == pytest.approx(math.log(VOCAB), rel=1e-6)


@pytest.mark.parametrize("kind", [Decoder, Encoder])
def test_sublayers_add_nothing_at_the_start_with_zero_outputs(kind: type) -> None:
    model = kind(VOCAB, dim=24, depth=2, zero_outputs=True)
    outputs = [p for name, p in model.named_parameters() if name.endswith("to_out.weight")]
    assert len(outputs) == 4 and all(weight.abs().max() == 0 for weight in outputs)
    assert model.get_submodule("stack.sublayers.0_attention.branch.projection.to_qkv").weight.std() > 0.1


def test_every_branch_is_zero_at_the_start_with_zero_outputs() -> None:
    tokens, inputs = example(2, 7, torch.float32)
    for name, options in RECIPES.items():
        if name in CASES:
            continue
        model = decoder(**{**options, "zero_outputs": True}).eval()
        outputs: list[torch.Tensor] = []
        for sublayer in model.stack.sublayers.values():
            sublayer.branch.register_forward_hook(lambda module, args, out, made=outputs: made.append(out[0]))
        with torch.no_grad():
            model(tokens, inputs=inputs)
        assert outputs and all(each.abs().max() == 0 for each in outputs), name


def test_a_tied_table_starts_as_an_embedding() -> None:
    assert build(head=TiedHead).token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_bare_parameters_are_not_initialized() -> None:
    model = nn.Module()
    model.own = nn.Parameter(torch.full((3,), 7.0))
    model.to_hidden = nn.Linear(3, 3)
    initialize(model, calls=2)
    assert model.own.tolist() == [7.0] * 3 and model.to_hidden.bias.tolist() == [0.0] * 3
