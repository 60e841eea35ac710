"""The decoder: inputs besides the tokens, dropout, and its refusals."""

import itertools
import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from catalogue import CONTEXT, DIM, VOCAB, attention, decoder, delta_net, randomise
from encoder_catalogue import encoder
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.contexts.base import ContextFactory
from lightning_xt.nn.contexts.given_context import GivenContext
from lightning_xt.nn.contexts.learned_context import LearnedContext
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.embeddings.type_embedding import TypeEmbedding
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.layouts.looped import Looped
from lightning_xt.nn.mixers.gated_delta_net import GatedDeltaNet
from lightning_xt.nn.mixers.hybrid import Hybrid
from lightning_xt.nn.mixers.mamba2 import Mamba2
from lightning_xt.nn.norms.adaptive_rms_norm import AdaptiveRMSNorm
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.positions.relative_bias import RelativeBias
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.shifts.token_shift import TokenShift

Build = Callable[[], Decoder]
BUILDS: dict[str, Build] = {
    "no_position": lambda: decoder(attention=attention(position=None)),
    "rotary": decoder,
    "alibi": lambda: decoder(attention=attention(position=ALiBi)),
    "relative_bias": lambda: decoder(attention=attention(position=RelativeBias)),
    "forgetting": lambda: decoder(attention=attention(position=Forgetting)),
    "learned_positions": lambda: decoder(
        attention=attention(position=None), embeddings=[partial(LearnedPositions, max_length=13)]
    ),
    "token_shift": lambda: decoder(shift=TokenShift),
    "window": lambda: decoder(attention=attention(window=2)),
    "memory": lambda: decoder(attention=attention(memory=3)),
    "delta_net": lambda: decoder(attention=delta_net()),
    "gated_delta_net": lambda: decoder(attention=partial(GatedDeltaNet, heads=4, dim_head=6, chunk=3)),
    "mamba2": lambda: decoder(attention=partial(Mamba2, heads=4, dim_head=6, groups=2, state_dim=3, chunk=3)),
    "hybrid": lambda: decoder(attention=partial(Hybrid, recipes=[attention(position=Forgetting), delta_net()])),
}
EACH = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def sample_tokens(rows: int, n: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, n))


@EACH
@torch.no_grad()
def test_documents_packed_in_one_row_equal_each_alone(build: Build) -> None:
    model, tokens = randomise(build), sample_tokens(2, 11)
    cuts = [[0, 5, 6, 11], [0, 2, 9, 11]]
    documents = torch.tensor([[4] * 5 + [1] + [2] * 5, [0] * 2 + [1] * 7 + [2] * 2])
    packed = model(tokens, inputs=Inputs(documents=documents))
    for row, ends in enumerate(cuts):
        for start, end in itertools.pairwise(ends):
            close(packed[[row], start:end], model(tokens[[row], start:end]))


@EACH
@torch.no_grad()
def test_a_soft_prefix_equals_the_tokens_it_embeds(build: Build) -> None:
    model, tokens = randomise(build), sample_tokens(2, 7)
    prefix = model.token_embedding(tokens[:, :3])
    soft = model(tokens[:, 3:], inputs=Inputs(prefix=prefix))
    assert soft.shape == (2, 4, VOCAB), "logits of the tokens only"
    close(soft, model(tokens)[:, 3:])


@torch.no_grad()
def test_a_soft_prefix_with_lengths_and_a_cache() -> None:
    model, tokens = randomise(decoder), sample_tokens(2, 8)
    inputs = Inputs(prefix=model.token_embedding(tokens[:, :3]))
    lengths = torch.tensor([4, 2])
    cache = model.new_cache(2, 8)
    given = {"lengths": lengths, "inputs": inputs, "last_only": True}
    first = model(tokens[:, 3:7], cache=cache, **given)
    close(first, model(tokens[:, 3:7], **given))
    assert cache.lengths.tolist() == [7, 5]
    step = model(torch.stack((tokens[0, 7], tokens[1, 5]))[:, None], cache=cache)
    close(step[[0]], model(tokens[[0]])[:, 7:8])
    close(step[[1]], model(tokens[[1], :6])[:, 5:6])


@torch.no_grad()
def test_early_tokens_see_the_whole_visible_prefix_and_nothing_more() -> None:
    model, tokens = randomise(lambda: decoder(depth=1)), sample_tokens(2, 7)
    inputs = Inputs(visible_prefix=torch.tensor([4, 1]))
    before = model(tokens, inputs=inputs)
    for changed in range(7):
        other = tokens.clone()
        other[:, changed] = (other[:, changed] + 1) % VOCAB
        moved = (model(other, inputs=inputs) - before).abs().amax(-1) > 1e-9
        for row, prefix in enumerate((4, 1)):
            expected = [t >= changed or changed < prefix for t in range(7)]
            assert moved[row].tolist() == expected, (row, changed)


@torch.no_grad()
def test_no_visible_prefix_is_plain_causal() -> None:
    model, tokens = randomise(decoder), sample_tokens(2, 7)
    close(model(tokens, inputs=Inputs(visible_prefix=torch.tensor([0, 1]))), model(tokens))


@torch.no_grad()
def test_a_visible_prefix_reads_the_same_through_a_cache() -> None:
    model, tokens = randomise(decoder), sample_tokens(2, 7)
    inputs = Inputs(visible_prefix=torch.tensor([4, 1]))
    cache = model.new_cache(2, 7)
    steps = [model(tokens[:, :5], inputs=inputs, cache=cache)]
    steps += [model(tokens[:, [t]], inputs=inputs, cache=cache) for t in (5, 6)]
    close(torch.cat(steps, dim=1), model(tokens, inputs=inputs))


@EACH
@torch.no_grad()
def test_cases_p3_hidden_tokens_have_no_influence_on_others(build: Build) -> None:
    model, tokens = randomise(build), sample_tokens(2, 7)
    hidden = torch.tensor([[False, False, True, False, True, False, False], [False, True, False] + [False] * 4])
    inputs = Inputs(hidden_tokens=hidden)
    other = torch.where(hidden, (tokens + 1) % VOCAB, tokens)
    before, after = model(tokens, inputs=inputs), model(other, inputs=inputs)
    close(after[~hidden], before[~hidden])
    assert (after[hidden] - before[hidden]).abs().max() > 1e-3
    assert (model(tokens) - before)[:, 2:].abs().max() > 1e-3


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("soft", [0, 3])
@pytest.mark.parametrize("lengths", [[5, 2], [-1, 3]], ids=str)
@torch.no_grad()
def test_cases_p5_refuses_lengths_beyond_the_tokens(lengths: list[int], soft: int, cached: bool) -> None:
    model = decoder()
    cache = model.new_cache(2, 9) if cached else None
    inputs = Inputs(prefix=torch.randn(2, soft, DIM)) if soft else None
    with pytest.raises(ValueError, match=f"lengths is {re.escape(str(lengths))}, but 2 rows of 3 tokens were given"):
        model(sample_tokens(2, 3), lengths=torch.tensor(lengths), inputs=inputs, cache=cache)


@torch.no_grad()
def test_cases_p5_refuses_other_rows_than_the_cache_has() -> None:
    model = decoder()
    with pytest.raises(ValueError, match=r"the cache has 1 row\(s\), but 2 were given; use new_cache\(2, "):
        model(sample_tokens(2, 3), cache=model.new_cache(1, 9))


@torch.no_grad()
def test_last_only_scores_what_follows_each_last_token() -> None:
    model, tokens = randomise(decoder), sample_tokens(2, 7)
    every = model(tokens)
    close(model(tokens, last_only=True), every[:, 6:])
    ragged = model(tokens, lengths=torch.tensor([3, 7]), last_only=True)
    assert ragged.shape == (2, 1, VOCAB)
    close(ragged, torch.stack((every[0, [2]], every[1, [6]])))


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5},
        {"attention": attention(dropout=0.5)},
        {"feedforward": partial(MLP, dropout=0.5)},
    ],
    ids=["model", "attention", "feedforward"],
)
@torch.no_grad()
def test_dropout_in_training_only(options: dict[str, object]) -> None:
    model, tokens = randomise(lambda: decoder(**options)), sample_tokens(2, 7)
    assert torch.equal(model(tokens), model(tokens))
    plain = randomise(decoder)
    plain.load_state_dict(model.state_dict())
    close(model(tokens), plain(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


@torch.no_grad()
def test_dropout_takes_whole_features_of_the_embeddings() -> None:
    """Dropout of embeddings takes whole features: without sublayers, a feature is dropped or doubled."""
    model = decoder(dropout=0.5)
    for sublayer in model.stack.sublayers.values():
        for name, parameter in sublayer.named_parameters():
            if "to_out" in name:
                parameter.zero_()
    model.stack.output_norm = None
    seen = []
    model.head.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    tokens = sample_tokens(8, 50)
    model.train()(tokens)
    embedded = model.token_embedding(tokens)
    dropped = seen[0] == 0
    assert 0.45 < dropped.float().mean() < 0.55
    torch.testing.assert_close(seen[0][~dropped], 2 * embedded[~dropped])


def test_a_stack_passes_shapes_to_its_parts() -> None:
    model = decoder(
        cross_attention=attention(position=RelativeBias), context=partial(GivenContext, dim=CONTEXT), depth=3
    )
    parts = {name: part.branch.shape for name, part in model.stack.sublayers.items() if "attention" in name}
    for layer in range(3):
        own, across = parts[f"{layer}_attention"], parts[f"{layer}_cross_attention"]
        assert (own.dim, own.layer, own.depth, own.causal, own.context_dim) == (DIM, layer, 3, True, None)
        assert (across.dim, across.layer, across.depth, across.causal) == (DIM, layer, 3, False)
        assert across.context_dim == CONTEXT


@pytest.mark.parametrize(
    ("context", "position"), [(partial(GivenContext, dim=DIM), Rotary), (LearnedContext, type(None))], ids=str
)
def test_a_context_alone_is_read_by_plain_cross_attention(context: ContextFactory, position: type) -> None:
    model = Decoder(VOCAB, context, dim=24, depth=3)
    for layer in range(3):
        branch = model.stack.sublayers[f"{layer}_cross_attention"].branch
        assert type(branch) is Attention and type(branch.position) is position
        assert (branch.shape.heads, branch.shape.dim_head, branch.shape.context_dim) == (8, 3, model.context.dim)
    assert [step.kind for step in model.stack.steps[:3]] == ["attention", "cross_attention", "feedforward"]
    assert Decoder(VOCAB, dim=24).context is None


@torch.no_grad()
def test_plain_cross_attention_distinguishes_the_order_of_a_sequence() -> None:
    given = {"context": partial(GivenContext, dim=CONTEXT), "dim": 24, "attention": attention()}
    plain, told, orderless = (
        randomise(partial(decoder, **given, **cross))
        for cross in ({}, {"cross_attention": Attention}, {"cross_attention": partial(Attention, position=None)})
    )
    tokens, context = sample_tokens(2, 7), torch.randn(2, 5, CONTEXT, dtype=torch.float64)
    before, after = Inputs(context=context), Inputs(context=context.flip(1))
    close(told(tokens, inputs=before), plain(tokens, inputs=before))
    assert (plain(tokens, inputs=after) - plain(tokens, inputs=before)).abs().max() > 1e-3
    close(orderless(tokens, inputs=after), orderless(tokens, inputs=before))
    assert (plain(tokens, inputs=Inputs(context=context[:, 1:])) - plain(tokens, inputs=before)).abs().max() > 1e-3


def test_a_cache_has_one_memory_per_call() -> None:
    cache = decoder(depth=3, layout=partial(Looped, loops=2)).new_cache(2, 7, slack=5)
    assert (len(cache), cache.capacity, cache.extent.slack, cache.lengths.tolist()) == (12, 7, 5, [0, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 0}, "decoder has vocab_size 0, which must be from 1 to 2147483648"),
        ({"dim": 0}, "decoder has dim 0, which must be from 1 to 1000000"),
        ({"depth": -1}, "decoder has depth -1, which must be from 1 to 10000"),
        ({"dropout": 1.0}, "decoder has dropout 1.0, which must be at least 0 and below 1"),
        ({"dropout": -0.5}, "decoder has dropout -0.5, which must be at least 0 and below 1"),
        (
            {"cross_attention": Attention},
            "decoder: cross_attention is given without a context; give context too, or omit both",
        ),
    ],
    ids=str,
)
def test_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Decoder(**{"vocab_size": VOCAB, "dim": DIM, "attention": attention(), **options})


def test_refuses_more_tokens_than_the_cache_holds() -> None:
    model = decoder()
    cache = model.new_cache(1, 4)
    model(sample_tokens(1, 3), cache=cache)
    message = "the cache holds 4 tokens a row, 3 are taken and 2 more were given; use new_cache(..., capacity=5)"
    with pytest.raises(ValueError, match=re.escape(message)):
        model(sample_tokens(1, 2), cache=cache)


WRONG_INPUTS = [
    ({"documents": torch.zeros(2, 4, dtype=torch.long)}, "whole numbers of shape (2, 5)"),
    ({"documents": torch.zeros(1, 5, dtype=torch.long)}, "whole numbers of shape (2, 5)"),
    ({"documents": torch.zeros(2, 5)}, "whole numbers of shape (2, 5)"),
    ({"types": torch.zeros(5, dtype=torch.long)}, "whole numbers of shape (2, 5)"),
    ({"hidden_tokens": torch.zeros(2, 5, dtype=torch.long)}, "boolean of shape (2, 5)"),
    ({"visible_prefix": torch.ones(2, 1, dtype=torch.long)}, "whole numbers of shape (2)"),
    ({"condition": torch.ones(3)}, "real numbers of shape (2, any)"),
    ({"condition": torch.ones(5, 3)}, "real numbers of shape (2, any)"),
    ({"prefix": torch.ones(2, 16)}, "real numbers of shape (2, any, any)"),
    ({"context": torch.ones(2, 3, 4), "context_mask": torch.ones(2, 4, dtype=torch.bool)}, "boolean of shape (2, 3)"),
]


@pytest.mark.parametrize(("given", "said"), WRONG_INPUTS)
def test_cases_p8_refuses_inputs_of_other_shapes(given: dict[str, Tensor], said: str, no_shape_checks: None) -> None:
    name, value = list(given.items())[-1]
    message = (
        f"Inputs({name}=...) is a {value.dtype} tensor of shape {tuple(value.shape)}; for 2 rows of 5 tokens it must"
    )
    for model in (decoder(), encoder()):
        with pytest.raises(ValueError, match=re.escape(f"{message} be {said}")):
            model(torch.zeros(2, 5, dtype=torch.long), inputs=Inputs(**given))


@pytest.mark.parametrize("tokens", [torch.zeros(5, dtype=torch.long), torch.zeros(2, 5), torch.zeros(0, 5).long()])
def test_cases_p8_refuses_tokens_of_other_shapes(tokens: Tensor, no_shape_checks: None) -> None:
    message = r"^tokens is a .*; it must be whole numbers of shape \(rows, tokens\), with at least one row$"
    for model in (decoder(), encoder()):
        with pytest.raises(ValueError, match=message):
            model(tokens)


def test_cases_p8_refuses_inputs_of_other_widths(no_shape_checks: None) -> None:
    tokens = torch.zeros(2, 5, dtype=torch.long)
    with pytest.raises(ValueError, match=r"prefix=...\) has vectors 12 wide, but dim is 13; give both the same width"):
        decoder()(tokens, inputs=Inputs(prefix=torch.ones(2, 3, 12)))
    adaptive, given = decoder(norm=partial(AdaptiveRMSNorm, condition_dim=3)), Inputs(condition=torch.ones(2, 4))
    with pytest.raises(ValueError, match="AdaptiveRMSNorm has condition_dim 3, but the condition is 4 wide; give both"):
        adaptive(tokens, inputs=given)
    with pytest.raises(
        ValueError, match="TypeEmbedding has num_types 2, but there is type 7; raise num_types, or change"
    ):
        decoder(embeddings=[TypeEmbedding])(tokens, inputs=Inputs(types=tokens + 7))


@pytest.mark.parametrize("cached", [True, False])
def test_cases_p8_a_row_without_a_token_has_no_last_one(cached: bool) -> None:
    model, tokens, lengths = decoder(), torch.zeros(2, 5, dtype=torch.long), torch.tensor([0, 3])
    cache = model.new_cache(2, 9) if cached else None
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match=r"lengths is \[0, 3\], .* from 1 to 5 for each row \(last_only "),
    ):
        model(tokens, lengths=lengths, cache=cache, last_only=True)
    soft = Inputs(prefix=torch.ones(2, 1, 13))
    with torch.no_grad():
        assert model(tokens, lengths=lengths, inputs=soft, cache=cache, last_only=True).shape == (2, 1, VOCAB)
        assert model(tokens, lengths=lengths).shape == (2, 5, VOCAB)


def test_cases_p8_nothing_is_trained_through_a_cache() -> None:
    model, tokens = decoder(), torch.zeros(2, 5, dtype=torch.long)
    cache = model.new_cache(2, 9)
    for part in (tokens, tokens[:, :1], tokens[:, :1]):
        logits = model(part, cache=cache)
    with pytest.raises(ValueError, match=r"^a cache is overwritten in place, so nothing can be trained through it;"):
        logits.sum().backward()
