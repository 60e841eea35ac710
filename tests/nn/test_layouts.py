"""Layouts: their steps, and a looped model as the same layers called again."""

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from catalogue import DIM, VOCAB, context_options, crop, decoder, example, randomise

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.layouts.attention_only import AttentionOnly
from lightning_xt.nn.layouts.base import Kind, Layout, Step
from lightning_xt.nn.layouts.custom_order import CustomOrder
from lightning_xt.nn.layouts.layer_order import LayerOrder
from lightning_xt.nn.layouts.looped import Looped
from lightning_xt.nn.layouts.macaron import Macaron
from lightning_xt.nn.layouts.par_order import PAROrder
from lightning_xt.nn.layouts.parallel import Parallel
from lightning_xt.nn.layouts.sandwich_order import SandwichOrder
from lightning_xt.nn.layouts.standard import Standard
from lightning_xt.nn.shifts.token_shift import TokenShift

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


def spell(layout: Layout, kinds: list[Kind] = KINDS) -> str:
    """Return a letter for each call, and check that no two calls share a sublayer."""
    steps = layout.list_steps(kinds)
    assert len({step.name for step in steps}) == len(steps)
    return "".join(step.kind[0] for step in steps)


OWN: list[Kind] = ["attention", "feedforward"]


@pytest.mark.parametrize(
    ("layout", "order", "across"),
    [
        (Macaron(2), "faffaf", "facffacf"),
        (AttentionOnly(2), "aa", "acac"),
        (SandwichOrder(4, coefficient=1), "aafafaff", "acacfacfacff"),
        (SandwichOrder(3, coefficient=0), "afafaf", "acfacfacf"),
        (SandwichOrder(16), "a" * 6 + "af" * 10 + "f" * 6, "ac" * 6 + "acf" * 10 + "f" * 6),
        # A third of 12 sublayers is 4 attentions, on 8 sublayers.
        (PAROrder(6, ratio=3), "afafafafffff", "acfacfacfacfffff"),
        # Half of 24 is 12, on 16.
        (PAROrder(12, ratio=2), "aaaf" * 4 + "f" * 8, "acacacf" * 4 + "f" * 8),
        # A fifth of 24 is 4, on 16.
        (PAROrder(12, ratio=5), "afff" * 4 + "f" * 8, "acfff" * 4 + "f" * 8),
        (CustomOrder(3, order="aafaf"), "aafaf", "acacfacf"),
        (LayerOrder(2, order=[0, 1]), "afaf", "acfacf"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_order_of_sublayers(layout: Layout, order: str, across: str) -> None:
    assert spell(layout, OWN) == order
    assert spell(layout) == across


def test_custom_order_places_cross_attention() -> None:
    assert spell(CustomOrder(2, order="afcf")) == "afcf"


def test_each_letter_counts_the_layers_by_itself() -> None:
    steps = CustomOrder(3, order="aafaf").list_steps(OWN)
    assert [step.name for step in steps] == [
        "0_attention",
        "1_attention",
        "0_feedforward",
        "2_attention",
        "1_feedforward",
    ]


def test_layer_order_runs_layers_again() -> None:
    model = randomise(lambda: decoder(layout=partial(LayerOrder, order=[1, 0, 1])))
    x = seen = model.token_embedding(torch.randint(0, VOCAB, (2, 7)))
    where = Where.from_sequence(7, causal=True, inputs=Inputs(), lengths=None, device=x.device)
    for layer in (1, 0, 1):
        for kind in OWN:
            x, _ = model.stack.sublayers[f"{layer}_{kind}"](x, where, Inputs(), Trace(), None)
    states, _ = model.stack(seen, where, Inputs(), Trace(), None)
    torch.testing.assert_close(states, model.stack.output_norm(x, Inputs()))
    assert len(model.new_cache(1, 7)) == 6


def test_macaron_takes_half_of_each_feedforward() -> None:
    model, x = randomise(lambda: decoder(layout=Macaron, depth=1)), torch.randn(2, 7, DIM, dtype=torch.float64)
    assert [*model.stack.sublayers] == ["0_feedforward", "0_attention", "0_feedforward_2"]
    where = Where.from_sequence(7, causal=True, inputs=Inputs(), lengths=None, device=x.device)
    for name, factor in (("0_feedforward", 0.5), ("0_attention", 1.0), ("0_feedforward_2", 0.5)):
        sublayer = model.stack.sublayers[name]
        out, _ = sublayer.branch(sublayer.placement.normalize_input(x, Inputs()), where, Inputs(), Trace(), None)
        x_after, _ = sublayer(x, where, Inputs(), Trace(), None)
        torch.testing.assert_close(x_after, x + factor * out)


def test_parallel_adds_all_branches_of_one_normed_input() -> None:
    model = randomise(lambda: decoder(layout=Parallel, depth=2, **context_options(position=None)))
    assert [*model.stack.sublayers] == ["0_attention", "1_attention"]
    tokens, inputs = example(2, 7)
    states = model.token_embedding(tokens)
    where = Where.from_sequence(7, causal=True, inputs=inputs, lengths=None, device=states.device)
    for sublayer in model.stack.sublayers.values():
        normed = sublayer.placement.norm_before(states, inputs)
        attention, across, feedforward = sublayer.branch.branches
        outs = [branch(normed, where, inputs, Trace(), None)[0] for branch in (attention, across)]
        states = states + outs[0] + outs[1] + feedforward.feedforward(normed)
    torch.testing.assert_close(model(tokens, inputs=inputs), model.head(model.stack.output_norm(states, inputs)))


def test_parallel_starts_as_calm_as_a_stack_of_as_many_branches() -> None:
    """The last map of a branch starts smaller, the more branches write to the stream."""
    standard, parallel = (decoder(layout=layout, depth=4, dim=64).state_dict() for layout in (Standard, Parallel))
    one, other = (
        next(w.std().item() for name, w in state.items() if name.endswith("feedforward.to_out.weight"))
        for state in (standard, parallel)
    )
    assert one == pytest.approx(other, rel=0.05)


@torch.no_grad()
def test_parallel_branches_with_cross_attention_decode_as_one_forward() -> None:
    model = randomise(lambda: decoder(layout=Parallel, shift=TokenShift, **context_options(memory=3)))
    tokens, inputs = example(2, 7)
    cache = model.new_cache(2, 7)
    made = [model(tokens[:, at : at + 1], inputs=crop(inputs, slice(at, at + 1)), cache=cache) for at in range(7)]
    torch.testing.assert_close(torch.cat(made, dim=1), model(tokens, inputs=inputs))


def test_parts_know_the_depth_of_their_layout() -> None:
    """Of 8 sublayers two are attention and six are feedforwards."""
    model = decoder(layout=PAROrder, depth=4)
    assert model.stack.sublayers["1_attention"].branch.shape.depth == 6


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: SandwichOrder(2, coefficient=3), "SandwichOrder has coefficient 3, which must be from 0 to 2"),
        (lambda: PAROrder(2, ratio=5), "PAROrder has ratio 5, which must be from 2 to 4"),
        (lambda: CustomOrder(2, order="aafx"), "CustomOrder has order 'aafx', which must be letters a (attention), c "),
        (lambda: CustomOrder(2, order="aa"), "order 'aa', which omits the feedforward; add an f, or choose the l"),
        (
            lambda: CustomOrder(2, order="ff"),
            "order 'ff', which omits attention, so that no token sees another; a",
        ),
        (lambda: CustomOrder(2, order=""), "CustomOrder has order '', which must be letters"),
        (lambda: CustomOrder(2, order="aafaf"), "whose most frequent letter stands 3 times, but depth is 2; set depth"),
        (lambda: decoder(layout=partial(CustomOrder, order="acfaf")), "has order 'acfaf' with a c, but there is no"),
        (
            lambda: LayerOrder(3, order=[0, 1, 1]),
            "LayerOrder has order [0, 1, 1], which must name each layer from 0 to 2",
        ),
        (
            lambda: LayerOrder(2, order=[0, 1, 2]),
            "LayerOrder has order [0, 1, 2], which must name each layer from 0 to 1",
        ),
    ],
    ids=range(10),
)
def test_orders_that_are_refused(build: Callable[[], object], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^layout: .*{re.escape(problem)}"):
        build()


def test_a_stack_of_cross_attention_and_feedforwards_alone() -> None:
    model = decoder(layout=partial(CustomOrder, order="cfcf"), **context_options(position=None))
    assert [*model.stack.sublayers] == ["0_cross_attention", "0_feedforward", "1_cross_attention", "1_feedforward"]
