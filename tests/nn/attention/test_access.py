"""Access at a forward: own masks, biases, positions, conditions, keys and values; traces and auxiliary losses."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from catalogue import (
    CONDITION,
    DEPTH,
    DIM,
    HEADS,
    VOCAB,
    attention,
    context_decoder,
    decoder,
    example,
    randomise,
)
from encoder_catalogue import pair, source
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.keys_values import KeysValues
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.norms.adaptive_rms_norm import AdaptiveRMSNorm
from lightning_xt.nn.output_mods.head_scale import HeadScale
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.contextual import Contextual
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.projections.latent import Latent

TOKENS, _ = example(2, 7)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("backend", ["fused", "explicit"])
@torch.no_grad()
def test_an_own_mask_hides_pairs_besides_the_causal_rule(backend: str) -> None:
    model = randomise(partial(decoder, attention=attention(backend=backend, memory=3)))
    mask = torch.ones(2, 7, 7, dtype=torch.bool)
    mask[:, :, 2] = False
    mask[:, 2, 2] = True
    hidden = torch.zeros(2, 7, dtype=torch.bool)
    hidden[:, 2] = True
    expected = model(TOKENS)
    torch.testing.assert_close(model(TOKENS, inputs=Inputs(mask=torch.ones_like(mask))), expected, rtol=1e-6, atol=1e-6)
    # Token 2 is seen by itself only.
    actual = model(TOKENS, inputs=Inputs(mask=mask))
    close(model(torch.where(hidden, (TOKENS + 1) % VOCAB, TOKENS), inputs=Inputs(mask=mask))[~hidden], actual[~hidden])
    assert (actual - expected)[:, 3:].abs().max() > 1e-6


@pytest.mark.parametrize("backend", ["fused", "explicit"])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("heads", [1, HEADS])
@torch.no_grad()
def test_an_own_bias_is_added_to_that_of_positions(backend: str, rows: int, heads: int) -> None:
    plain = randomise(partial(decoder, attention=attention(backend=backend, position=None, memory=2)))
    biased = randomise(partial(decoder, attention=attention(backend=backend, position=ALiBi, memory=2)))
    biased.load_state_dict(plain.state_dict())
    slopes = biased.stack.sublayers["0_attention"].branch.position.slopes.double()
    at = torch.arange(7)
    alibi = -slopes[:, None, None] * (at[:, None] - at).abs()
    if heads == 1:
        own = torch.randn(rows, 1, 7, 7, dtype=torch.float64)
        together = plain(TOKENS, inputs=Inputs(bias=own + alibi))
        torch.testing.assert_close(biased(TOKENS, inputs=Inputs(bias=own)), together, rtol=1e-6, atol=1e-6)
    else:
        given = plain(TOKENS, inputs=Inputs(bias=alibi.expand(rows, -1, -1, -1)))
        torch.testing.assert_close(given, biased(TOKENS), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_bias_for_other_heads_is_refused() -> None:
    rule = (
        rf"Inputs\(bias=...\) is for 2 row\(s\) and 3 head\(s\); it must be for 1 or 2 rows and for 1 or {HEADS} heads"
    )
    with pytest.raises(ValueError, match=rule):
        decoder()(TOKENS, inputs=Inputs(bias=torch.zeros(2, 3, 7, 7)))


@pytest.mark.parametrize("position", [None, ALiBi, Forgetting, Contextual])
@torch.no_grad()
def test_own_positions_that_are_the_indices_change_nothing(position: object) -> None:
    options = {} if position is None else {"position": position}
    model = randomise(partial(decoder, attention=attention(**options)))
    given = model(TOKENS, inputs=Inputs(positions=torch.arange(7).expand(2, -1)))
    close(given, model(TOKENS))


@torch.no_grad()
def test_a_shuffled_order_is_causal_by_index_and_placed_by_position() -> None:
    """The last token sees a set: the order in which its tokens are given does not matter, only their positions."""
    model = randomise(partial(decoder, depth=1))
    order = torch.tensor([3, 0, 5, 1, 4, 2, 6])
    shuffled = model(TOKENS[:, order], inputs=Inputs(positions=order.expand(2, -1)))
    close(shuffled[:, -1], model(TOKENS)[:, -1])
    later = TOKENS[:, order].clone()
    later[:, 4] = (later[:, 4] + 1) % VOCAB
    close(model(later, inputs=Inputs(positions=order.expand(2, -1)))[:, :4], shuffled[:, :4])


@torch.no_grad()
def test_own_positions_may_be_negative_and_a_visible_prefix_stays_that_of_the_index() -> None:
    """Only distances count, and the first tokens are those of the smallest index."""
    model = randomise(decoder)
    at, prefix = torch.arange(7).expand(2, -1), torch.tensor([4, 2])
    expected = model(TOKENS, inputs=Inputs(visible_prefix=prefix))
    for shift in (-5, 5):
        close(model(TOKENS, inputs=Inputs(visible_prefix=prefix, positions=at + shift)), expected)
    where = Where.from_sequence(7, causal=True, inputs=Inputs(positions=at - 5), lengths=None, device=at.device)
    assert torch.equal(where.pad(2, 3).dense()[0, :, :7, :7], where.dense()[0])
    assert not where.pad(2, 3).dense()[..., 7:].any()


@torch.no_grad()
def test_whole_sequences_are_refused_while_decoding() -> None:
    model = decoder()
    square = torch.ones(2, 7, 7, dtype=torch.bool)
    for name, value in (("mask", square), ("bias", square[:, None].float()), ("positions", TOKENS)):
        with pytest.raises(ValueError, match=rf"Inputs\({name}=...\) describes whole sequences; omit it"):
            model(TOKENS, inputs=Inputs(**{name: value}), cache=model.new_cache(2, 7))
        soft = Inputs(prefix=torch.zeros(2, 1, DIM), **{name: value})
        with pytest.raises(ValueError, match=rf"Inputs\({name}=...\) says nothing of soft tokens"):
            model(TOKENS, inputs=soft)


@torch.no_grad()
def test_a_condition_of_a_token_reaches_this_token_only() -> None:
    model = randomise(partial(decoder, norm=partial(AdaptiveRMSNorm, condition_dim=CONDITION)))
    row = torch.randn(2, CONDITION, dtype=torch.float64)
    each = row[:, None].expand(-1, 7, -1).clone()
    expected = model(TOKENS, inputs=Inputs(condition=row))
    close(model(TOKENS, inputs=Inputs(condition=each)), expected)
    each[:, 4] += 1
    changed = model(TOKENS, inputs=Inputs(condition=each))
    close(changed[:, :4], expected[:, :4])
    assert (changed - expected)[:, 4].abs().max() > 1e-6


@torch.no_grad()
def test_keys_and_values_of_another_model_are_seen_by_every_token() -> None:
    """Given the keys and values of the first tokens of the same model, the rest of a row is as in one forward."""
    model = randomise(partial(decoder, depth=1))
    _, trace = model(TOKENS, trace=Trace(keeps_maps=True))
    first = [KeysValues(made.keys[:, :, :4], made.values[:, :, :4]) for made in trace.maps]
    inputs = Inputs(keys_values=first, positions=torch.arange(4, 7).expand(2, -1))
    close(model(TOKENS[:, 4:], inputs=inputs), model(TOKENS)[:, 4:])
    masked = [replace_mask(each, torch.tensor([[True] * 4, [False] * 4])) for each in first]
    actual = model(TOKENS[:, 4:], inputs=replace(inputs, keys_values=masked))
    close(actual[:1], model(TOKENS)[:1, 4:])
    close(actual[1:], model(TOKENS[1:, 4:], inputs=Inputs(positions=inputs.positions[1:])))
    close(model(TOKENS, inputs=Inputs(keys_values=[None])), model(TOKENS))
    with pytest.raises(ValueError, match=r"Inputs\(keys_values=...\) has keys of shape .* for layer 0, whose own are"):
        model(TOKENS, inputs=Inputs(keys_values=[KeysValues(first[0].keys[:1], first[0].values[:1])]))
    with pytest.raises(ValueError, match="with keys and values per head"):
        decoder(attention=attention(projection=Latent))(TOKENS, inputs=Inputs(keys_values=first))


def replace_mask(given: KeysValues, mask: Tensor) -> KeysValues:
    return KeysValues(given.keys, given.values, mask)


@torch.no_grad()
def test_a_trace_has_every_layer_and_nothing_unless_asked() -> None:
    model = randomise(partial(context_decoder, position=None))
    _, inputs = example(2, 7)
    logits, trace = model(TOKENS, inputs=inputs, trace=Trace(keeps_maps=True, keeps_hidden=True))
    close(logits, model(TOKENS, inputs=inputs))
    close(model.head(trace.states), logits)
    assert [(made.kind, made.layer) for made in trace.maps] == [
        (kind, layer) for layer in range(DEPTH) for kind in ("attention", "cross_attention")
    ]
    for made in trace.maps:
        close(made.weights.sum(dim=-1), torch.ones(2, HEADS, 7, dtype=torch.float64))
        assert not made.weights.masked_fill(made.mask, 0).any()
        close(made.scores.masked_fill(~made.mask, float("-inf")).softmax(dim=-1), made.weights)
    assert len(trace.hidden) == 3 * DEPTH
    close(trace.hidden[0], model.token_embedding(TOKENS))
    _, bare = model(TOKENS, inputs=inputs, trace=Trace())
    # The stack keeps no values, because no part reads them.
    assert bare == Trace(states=bare.states, keeps_values=False)


@torch.no_grad()
def test_a_trace_of_an_encoder_decoder_has_that_of_the_encoder() -> None:
    model, (src, mask), tgt = randomise(pair), source(2, 7), TOKENS[:, :5]
    logits, trace = model(src, tgt, mask, trace=Trace(keeps_maps=True))
    close(logits, model(src, tgt, mask))
    assert [made.kind for made in trace.source.maps] == ["attention"] * DEPTH
    assert trace.source.maps[0].weights.shape == (2, HEADS, 7, 7)
    states, alone = model.encoder(src, mask, trace=Trace(keeps_maps=True))
    close(states, alone.states)
    close(alone.maps[1].weights, trace.source.maps[1].weights)


def test_the_z_loss_of_attention_is_the_mean_over_layers_of_squared_sums() -> None:
    model = randomise(partial(decoder, attention=attention(z_loss=0.5))).train()
    scored = torch.ones(2, 7, dtype=torch.bool)
    scored[1, 3:] = False
    _, trace = model(TOKENS, inputs=Inputs(scored=scored), trace=Trace())
    with torch.no_grad():
        maps = model.eval()(TOKENS, trace=Trace(keeps_maps=True))[1].maps
    each = [
        made.scores.masked_fill(~made.mask, float("-inf")).logsumexp(dim=-1).square().transpose(1, 2)[scored].mean()
        for made in maps
    ]
    torch.testing.assert_close(trace.sum_losses()["attention_z_loss"], 0.5 * torch.stack(each).mean())
    assert model(TOKENS, trace=Trace())[1].losses == ()
    trace.sum_losses()["attention_z_loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@torch.no_grad()
def test_output_mods_that_read_values_need_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeadScale, "reads_values", True)
    with pytest.raises(ValueError, match="output_mods: HeadScale reads the values of the token itself, which cross"):
        context_decoder(output_mods=[HeadScale])
    with pytest.raises(ValueError, match=r"Latent has no keys and values per head, .* output_mods HeadScale"):
        decoder(attention=attention(output_mods=[HeadScale], projection=Latent))
