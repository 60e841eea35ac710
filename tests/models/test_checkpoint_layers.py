"""Activation checkpointing: less is kept for the backward pass, and the gradients stay as they are, to the bit."""

from functools import partial
from typing import Any

import pytest
import torch
from catalogue import ALL, BUILDS, Build, attention, decoder, example, randomise
from torch import Tensor, nn

from lightning_xt.core.trace import Trace
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.stack import Stack
from lightning_xt.nn.value_mods.value_residual import ValueResidual


def train_once(build: Build, **options: Any) -> tuple[Tensor, list[Tensor | None], Tensor]:
    """Return the loss, the gradients and the random state after a training step with dropout."""
    model = randomise(partial(build, dropout=0.2, **options)).train()
    tokens, inputs = example(2, 7)
    torch.manual_seed(3)
    logits, trace = model(tokens, inputs=inputs, trace=Trace())
    loss = logits.square().sum() + sum(trace.sum_losses().values())
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters()], torch.get_rng_state()


def check_gradients(build: Build) -> None:
    (loss, gradients, state), (again, theirs, after) = (
        train_once(build, checkpoint_layers=layers) for layers in (False, True)
    )
    assert torch.equal(loss, again)
    assert torch.equal(state, after), "other random numbers follow"
    for one, other in zip(gradients, theirs, strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or torch.equal(one, other)


@pytest.mark.parametrize(
    "name",
    [
        "position=RandomizedPositions",
        "normalizer=GumbelSoftmax",
        "feedforward=MixtureOfExperts",
        "score_mods=ResidualScores",
        "looped-links-hyper_connection",
        "given_context-value_residual-memory",
        "shared_kv-cycle-window-memory-hyper_connection",
        "layout=Parallel",
    ],
)
def test_gradients_are_the_same_to_the_bit(name: str) -> None:
    check_gradients(BUILDS[name])


@pytest.mark.slow
@ALL
def test_gradients_of_every_variant_are_the_same_to_the_bit(build: Build) -> None:
    check_gradients(build)


def count_saved(model: nn.Module, *given: Any) -> int:
    """Count the bytes that autograd keeps outside of checkpointed blocks."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = model(*given)
    del out
    return sum(storages.values())


def test_each_checkpointed_layer_keeps_less() -> None:
    tokens, _ = example(2, 7)
    saved = [count_saved(decoder(depth=3, checkpoint_layers=layers).train(), tokens) for layers in (0, 1, 2, 3)]
    assert saved == sorted(saved, reverse=True) and len(set(saved)) == 4
    assert count_saved(decoder(depth=3, checkpoint_layers=True).train(), tokens) == saved[3]
    assert count_saved(decoder(depth=3).train(), tokens) == saved[0]


def test_values_are_kept_only_for_layers_that_read_them() -> None:
    """Values are a part of queries, keys and values, all of which they would keep in memory."""
    kept: list[int] = []
    for options in ({}, {"attention": attention(value_mods=[ValueResidual])}):
        model = decoder(**options)
        model.stack.sublayers["1_feedforward"].register_forward_hook(
            lambda module, args, made: kept.append(len(made[1].values))
        )
        model(example(2, 7)[0])
    assert kept == [0, 2]


def test_an_encoder_checkpoints_too() -> None:
    build = partial(Encoder, 11, dim=16, depth=2)
    tokens, _ = example(2, 7)
    assert count_saved(build(checkpoint_layers=True).train(), tokens) < count_saved(build().train(), tokens) / 2


def test_nothing_is_computed_twice_without_gradients_or_with_a_cache() -> None:
    model = decoder(checkpoint_layers=True).train()
    tokens, _ = example(2, 7)
    calls: list[int] = []
    model.stack.sublayers["0_attention"].branch.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(tokens)
        model(tokens, cache=model.new_cache(2, 7))
    model(tokens, cache=model.new_cache(2, 7))
    assert len(calls) == 3
    model(tokens).sum().backward()
    assert len(calls) == 5


@pytest.mark.parametrize("layers", [-1, 3])
def test_a_number_of_layers_that_are_not_there(layers: int) -> None:
    with pytest.raises(
        ValueError, match=rf"^checkpoint_layers is {layers}; it must be true, false or a number .* to the depth, 2$"
    ):
        decoder(checkpoint_layers=layers)


def test_a_stack_lists_the_branches_that_write() -> None:
    assert isinstance(stack := decoder(depth=3).stack, Stack)
    assert stack.writes == decoder(depth=3, layout=BUILDS["layout=Parallel"].keywords["layout"]).stack.writes == 6
