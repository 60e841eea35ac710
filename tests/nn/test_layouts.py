"""Layouts: their steps, and a looped model as the same layers called again."""

from functools import partial

import pytest
import torch
from catalogue import VOCAB, decoder, randomise

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.layouts.base import Kind, Step
from lightning_xt.nn.layouts.looped import Looped
from lightning_xt.nn.layouts.standard import Standard

KINDS: list[Kind] = ["attention", "cross_attention", "feedforward"]


def test_standard_calls_each_layer_once() -> None:
    assert list(Standard(2).list_steps(KINDS)) == [
        Step("attention", 0),
        Step("cross_attention", 0),
        Step("feedforward", 0),
        Step("attention", 1),
        Step("cross_attention", 1),
        Step("feedforward", 1),
    ]


def test_looped_goes_through_all_layers_again() -> None:
    attention, feedforward = "attention", "feedforward"
    once = [Step(attention, 0), Step(feedforward, 0), Step(attention, 1), Step(feedforward, 1)]
    assert list(Looped(2, loops=3).list_steps([attention, feedforward])) == once * 3
    assert list(Looped(2).list_steps([attention, feedforward])) == once * 2


def test_a_looped_model_has_the_parameters_of_one_pass() -> None:
    count = {
        loops: sum(p.numel() for p in decoder(layout=partial(Looped, loops=loops)).parameters()) for loops in (1, 4)
    }
    assert count[1] == count[4] == sum(p.numel() for p in decoder().parameters())


def test_a_looped_model_is_its_layers_applied_twice() -> None:
    model = randomise(lambda: decoder(layout=Looped))
    tokens = torch.randint(0, VOCAB, (2, 7))
    inputs, x = Inputs(), model.token_embedding(tokens)
    where = Where.from_sequence(7, causal=True, inputs=inputs, lengths=None, device=x.device)
    for _ in range(2):
        for name in ("0_attention", "0_feedforward", "1_attention", "1_feedforward"):
            x, _ = model.stack.sublayers[name](x, where, inputs, Trace(), None)
    expected = model.head(model.stack.output_norm(x, inputs))
    torch.testing.assert_close(model(tokens), expected)


def test_a_looped_model_caches_each_call_apart() -> None:
    model = decoder(layout=partial(Looped, loops=3))
    assert len(model.new_cache(1, 7)) == 2 * 2 * 3


def test_looped_refuses_no_loops() -> None:
    with pytest.raises(ValueError, match="layout: Looped has loops 0, which must be at least 1"):
        Looped(2, loops=0)
