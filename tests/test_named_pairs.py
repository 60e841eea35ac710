"""Pairs that other libraries get wrong, by name: each keeps every law, and what is particular to it."""

import copy
from functools import partial

import pytest
import torch
from catalogue import (
    CASES,
    VOCAB,
    Options,
    attention,
    attention_layers,
    context_options,
    decoder,
    example,
    randomise,
    shared,
)
from encoder_catalogue import pair, source
from pair_laws import check, close

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.generation.engine import generate
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.nn.embeddings.sinusoidal_positions import SinusoidalPositions
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.nn.layouts.macaron import Macaron
from lightning_xt.nn.links.layer_mixture import LayerMixture
from lightning_xt.nn.links.u_net_skips import UNetSkips
from lightning_xt.nn.normalizers.top_k_softmax import TopKSoftmax
from lightning_xt.nn.output_projections.attention_on_attention import AttentionOnAttention
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.positions.polar import Polar
from lightning_xt.nn.positions.relative_projection import RelativeProjection
from lightning_xt.nn.projections.latent import Latent
from lightning_xt.nn.residuals.hyper_connection import HyperConnection
from lightning_xt.nn.scales.stochastic_depth import StochasticDepth
from lightning_xt.nn.segments.memory_tokens import MemoryTokens
from lightning_xt.nn.segments.segment_recurrence import SegmentRecurrence
from lightning_xt.nn.value_mods.value_norm import ValueNorm
from lightning_xt.nn.value_mods.value_residual import ValueResidual
from lightning_xt.objectives.forgetful_next_token import ForgetfulNextToken

SEGMENT = {"length": 8, "memory": 5}
XL = {"segments": partial(SegmentRecurrence, **SEGMENT)}
PAIRS: dict[str, Options] = {
    "value residual, grouped queries": {"attention": attention(value_mods=[ValueResidual], kv_heads=2)},
    "value norm, grouped queries": {"attention": attention(value_mods=[ValueNorm], kv_heads=2)},
    "polar, grouped queries": {"attention": attention(position=Polar, kv_heads=2)},
    "memory, relative projection": {"attention": attention(memory=3, position=RelativeProjection)},
    "memory, forgetting": {"attention": attention(memory=3, position=Forgetting)},
    "memory tokens, prompts of different lengths": {"segments": partial(MemoryTokens, **SEGMENT)},
    "sinusoidal positions, prompts of different lengths": {"embeddings": [SinusoidalPositions]},
    "Transformer-XL, forgetting": {**XL, "attention": attention(position=Forgetting)},
    "Transformer-XL, hyper-connections": {**XL, "residual": HyperConnection},
    "top-k, short prompts": {"attention": attention(normalizer=partial(TopKSoftmax, num_keys=5))},
    "zero outputs, attention on attention": {
        "zero_outputs": True,
        "attention": attention(output_projection=AttentionOnAttention),
    },
    "U-net skips, macaron": {"links": [UNetSkips], "layout": Macaron},
    "U-net skips, cross-attention": {"links": [UNetSkips], **context_options(position=None)},
    "stochastic depth, layer mixtures": {"scale": StochasticDepth, "links": [LayerMixture]},
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_that_others_get_wrong_keeps_the_laws(name: str) -> None:
    check("decoder", randomise(partial(decoder, **PAIRS[name])), name)


@torch.no_grad()
def test_memory_and_an_own_mask() -> None:
    """The mask is about tokens; persistent keys stay visible."""
    model, (tokens, _) = shared(partial(decoder, **CASES["memory"])), example(2, 7)
    recent = (torch.arange(7)[:, None] - torch.arange(7) < 3).expand(2, -1, -1)
    windowed = copy.deepcopy(model)
    for layer in attention_layers(windowed):
        layer.window = 3
    close("mask = window", model(tokens, inputs=Inputs(mask=recent)), windowed(tokens))
    only_own = torch.eye(7, dtype=torch.bool).expand(2, -1, -1)
    before = model(tokens, inputs=Inputs(mask=only_own))
    for layer in attention_layers(model := copy.deepcopy(model)):
        layer.memory.add_(1.0)
    assert (model(tokens, inputs=Inputs(mask=only_own)) - before).abs().amax(dim=-1).min() > 1e-6


@pytest.mark.parametrize("method", [None, BeamSearch(beams=3)], ids=["greedy", "beams"])
def test_latent_keys_and_values_generate_alone_as_among_others(method: BeamSearch | None) -> None:
    model, (tokens, _) = randomise(partial(decoder, attention=attention(projection=Latent))), example(2, 5)
    lengths, options = torch.tensor([5, 2]), {"temperature": 0.0 if method is None else 1.0, "method": method}
    together = generate(model, tokens, 6, lengths=lengths, **options)
    for row, length in enumerate(lengths.tolist()):
        alone = generate(model, tokens[row : row + 1, :length], 6, **options)
        assert torch.equal(together[row], alone[0])


def test_beams_and_cross_attention_in_a_batch() -> None:
    model, (src, mask), (tgt, _) = randomise(pair), source(2, 7), example(2, 1)
    given = model.encode(src, mask)
    together = generate(model.decoder, tgt, 6, method=BeamSearch(beams=3), inputs=given)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        mine = slice(row, row + 1)
        known = model.encode(src[mine, :length])
        assert torch.equal(
            together[row], generate(model.decoder, tgt[mine], 6, method=BeamSearch(beams=3), inputs=known)[0]
        )


def test_a_tied_head_and_deepcopy() -> None:
    model = copy.deepcopy(randomise(partial(decoder, head=TiedHead)))
    assert model.head.weight is model.token_embedding.weight


def test_a_z_loss_and_the_fused_backend() -> None:
    """Training with a z-loss runs in plain products; the logits are those of the fused kernel."""
    model, (tokens, _) = randomise(partial(decoder, attention=attention(z_loss=0.1, backend="fused"))), example(2, 7)
    expected = model(tokens)
    logits, trace = model.train()(tokens, trace=Trace())
    close("training = evaluation", logits, expected)
    assert [each.name for each in trace.losses] == ["attention_z_loss"] * 2
    sum(each.value for each in trace.losses).backward()
    assert model.stack.sublayers["0_attention"].branch.projection.to_qkv.weight.grad.abs().max() > 0


@torch.no_grad()
def test_hidden_tokens_and_evaluation() -> None:
    """In evaluation nothing is hidden, so that the loss is that of the plain objective, every time."""
    model, (tokens, _) = randomise(decoder), example(2, 9)
    objective = ForgetfulNextToken(
        ObjectiveShape(vocab_size=VOCAB, token_embedding=model.token_embedding, head=model.head), max_fraction=0.9
    ).eval()
    first, second = (objective(model, tokens).total for _ in range(2))
    assert torch.equal(first, second)


def test_an_end_inside_the_prompt_ends_nothing() -> None:
    model, (tokens, _) = randomise(decoder), example(1, 5)
    free = generate(model, tokens, 6, temperature=0.0)
    end = int(tokens[0, 2])
    found = generate(model, tokens, 6, temperature=0.0, end=end)
    stop = next((at for at, token in enumerate(free[0].tolist()) if token == end), 5)
    assert torch.equal(found[0, : stop + 1], free[0, : stop + 1])
