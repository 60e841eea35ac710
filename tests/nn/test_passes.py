"""Passes by hand: what each pass reads, where gradients go, and the numbers of passes that training draws."""

import collections
from functools import partial
from typing import Any

import pytest
import torch
from catalogue import attention, crop, decoder, example, randomise
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.attention.cycle import Cycle
from lightning_xt.nn.feedforward.mixture_of_experts import MixtureOfExperts
from lightning_xt.nn.layouts.layer_order import LayerOrder
from lightning_xt.nn.layouts.par_order import PAROrder
from lightning_xt.nn.mixers.mamba2 import Mamba2
from lightning_xt.nn.passes.exit_loops import ExitLoops
from lightning_xt.nn.passes.recycling import Recycling
from lightning_xt.nn.placements.peri_norm import PeriNorm
from lightning_xt.nn.value_mods.value_residual import ValueResidual


def run_once(model: Decoder, x: Tensor) -> Tensor:
    """Run the layers once, by hand."""
    where = Where.from_sequence(x.shape[1], causal=True, inputs=Inputs(), lengths=None, device=x.device)
    trace = Trace()
    if model.stack.embedding_norm is not None:
        x = model.stack.embedding_norm(x, Inputs())
    for sublayer in model.stack.sublayers.values():
        x, trace = sublayer(x, where, Inputs(), trace, None)
    return model.stack.output_norm(x, Inputs())


def test_recycling_adds_the_normed_output_to_the_embeddings() -> None:
    options: dict[str, Any] = {"attention": attention(value_mods=[ValueResidual]), "placement": PeriNorm}
    model = randomise(lambda: decoder(passes=partial(Recycling, passes=3), **options))
    tokens, _ = example(2, 7)
    embedded = model.token_embedding(tokens)
    states = run_once(model, embedded)
    for _ in range(2):
        rms = states.square().mean(dim=-1, keepdim=True).add(1e-6).sqrt()
        states = run_once(model, embedded + states / rms * model.stack.passes.norm.gain)
    torch.testing.assert_close(model(tokens), model.head(states), rtol=1e-6, atol=1e-6)


def test_only_the_last_pass_of_recycling_gets_gradients() -> None:
    model = randomise(lambda: decoder(passes=partial(Recycling, passes=2)))
    tokens, _ = example(2, 7)
    with torch.no_grad():
        first = run_once(model, model.token_embedding(tokens))
    expected = run_once(model, model.token_embedding(tokens) + model.stack.passes.norm(first, Inputs()))
    names, weights = zip(*model.named_parameters(), strict=True)
    made = torch.autograd.grad(model(tokens).square().sum(), weights)
    wanted = torch.autograd.grad(model.head(expected).square().sum(), weights)
    for name, one, other in zip(names, made, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8, msg=name)


def count_calls(model: Decoder, calls: list[int]) -> None:
    model.stack.sublayers["0_attention"].register_forward_pre_hook(lambda *_: calls.append(1))


def test_training_draws_the_number_of_passes_and_evaluation_does_not() -> None:
    model, tokens = decoder(passes=partial(Recycling, passes=3)), example(2, 7)[0]
    calls: list[int] = []
    count_calls(model, calls)
    torch.manual_seed(1)
    drawn = collections.Counter[int]()
    for _ in range(60):
        calls.clear()
        model(tokens)
        drawn[len(calls)] += 1
    assert drawn.keys() == {1, 2, 3} and min(drawn.values()) > 10
    calls.clear()
    model.eval()(tokens)
    model.train()(tokens, cache=model.new_cache(2, 7))
    assert len(calls) == 6


def test_a_drawn_number_is_that_of_the_seed() -> None:
    model, tokens = randomise(lambda: decoder(passes=Recycling)).train(), example(2, 7)[0]

    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model(tokens)

    assert torch.equal(draw(3), draw(3))
    assert len({draw(seed).sum().item() for seed in range(20)}) == 4


def test_one_pass_has_gradients_of_all_weights_for_other_processes() -> None:
    """DistributedDataParallel waits for the gradient of every weight, so the norm is called in a single pass too."""
    model = decoder(passes=partial(Recycling, passes=1)).train()
    model(example(2, 7)[0]).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_exit_loops_run_on_their_own_normed_output() -> None:
    model = randomise(lambda: decoder(passes=partial(ExitLoops, passes=3)))
    tokens, _ = example(2, 7)
    states, exits = model.token_embedding(tokens), []
    for _ in range(3):
        states = run_once(model, states)
        exits.append(states)
    logits, trace = model(tokens, trace=Trace())
    torch.testing.assert_close(logits, model.head(states))
    torch.testing.assert_close(torch.stack(trace.exits), torch.stack(exits))


def test_exits_are_the_states_of_the_tokens_that_the_head_reads() -> None:
    model = randomise(lambda: decoder(passes=partial(ExitLoops, passes=2), embedding_dim=5))
    tokens, _ = example(2, 7)
    prefix = torch.randn(2, 3, 13, dtype=torch.float64)
    _, trace = model(tokens, inputs=Inputs(prefix=prefix), trace=Trace())
    assert [each.shape for each in trace.exits] == [(2, 7, 5)] * 2
    torch.testing.assert_close(trace.exits[-1], trace.states)


@pytest.mark.parametrize(("passes", "terms"), [(Recycling, 2), (ExitLoops, 6)])
def test_auxiliary_losses_are_those_of_passes_with_gradients(passes: type, terms: int) -> None:
    options = {"attention": attention(z_loss=0.5), "feedforward": partial(MixtureOfExperts, num_experts=2)}
    model, tokens = decoder(passes=partial(passes, passes=3), **options).train(), example(2, 7)[0]
    _, trace = model(tokens, trace=Trace())
    found = [term for term in trace.losses if term.name == "attention_z_loss"]
    assert len(found) == terms
    # A mean over the calls.
    assert sum(term.weight for term in found) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({"depth": 2, "layout": partial(LayerOrder, order=[0, 1, 1, 1])}, 4),
        ({"depth": 4, "layout": partial(PAROrder, ratio=4)}, 2),
        (
            {
                "depth": 4,
                "attention": partial(
                    Cycle, recipes=[attention(z_loss=0.5), partial(Mamba2, heads=2, dim_head=6, state_dim=3)]
                ),
            },
            2,
        ),
    ],
)
def test_auxiliary_losses_are_means_over_the_calls_that_have_one(options: dict[str, Any], terms: int) -> None:
    model = decoder(**{"attention": attention(z_loss=0.5), **options}).train()
    found = model(example(2, 7)[0], trace=Trace())[1].losses
    assert [term.weight for term in found] == [0.5 / terms] * terms


@torch.no_grad()
def test_each_pass_has_its_own_cache() -> None:
    model = randomise(lambda: decoder(passes=partial(Recycling, passes=3), depth=2))
    tokens, inputs = example(2, 7)
    cache = model.new_cache(2, 7)
    assert len(cache) == 3 * 4
    made = [model(tokens[:, at : at + 1], inputs=crop(inputs, slice(at, at + 1)), cache=cache) for at in range(7)]
    torch.testing.assert_close(torch.cat(made, dim=1), model(tokens))


@pytest.mark.parametrize("passes", [Recycling, ExitLoops])
def test_no_pass_is_refused(passes: type) -> None:
    with pytest.raises(ValueError, match=rf"^passes: {passes.__name__} has passes 0, which must be at least 1$"):
        decoder(passes=partial(passes, passes=0))
