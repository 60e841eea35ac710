"""Contrastive decoding: a formula over the models' scores, and its plausible tokens."""

import math
import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from catalogue import BUILDS, VOCAB, Build, attention, crop, decoder, example, randomise
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.engine import generate, run_requests
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.methods.draft import Draft
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.generation.models.contrastive import Contrastive
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions


def amateur(seed: int) -> Decoder:
    """Build a weaker model."""
    torch.manual_seed(seed)
    model = decoder(depth=1).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def draw_tokens(rows: int, n: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, n))


@torch.no_grad()
def score_by_hand(models: list[Decoder], text: Tensor, strength: float, plausibility: float) -> Tensor:
    """Compute scores of one token after the other."""
    own, *others = [model(text).softmax(-1).tolist() for model in models]
    out = torch.full((*text.shape, VOCAB), -math.inf, dtype=torch.float64)
    for row in range(text.shape[0]):
        for at in range(text.shape[1]):
            best = max(own[row][at])
            for word, p in enumerate(own[row][at]):
                if p >= plausibility * best:
                    doubt = sum(math.log(other[row][at][word]) for other in others) / len(others)
                    out[row, at, word] = (1 + strength) * math.log(p) - strength * doubt
    return out


@pytest.mark.parametrize(("strength", "plausibility"), [(0.5, 0.1), (0.0, 0.1), (2.0, 0.01), (1.0, 1.0)])
@pytest.mark.parametrize("number", [1, 2])
def test_scores_are_those_of_the_formula(number: int, strength: float, plausibility: float) -> None:
    models, text = [randomise(decoder), *(amateur(seed) for seed in range(number))], draw_tokens(3, 5)
    wrapped = Contrastive(models[0], models[1:], strength=strength, plausibility=plausibility)
    with torch.no_grad():
        got = wrapped(text)
    assert torch.allclose(got, score_by_hand(models, text, strength, plausibility), atol=1e-12)
    left = (got > -math.inf).sum(-1)
    assert left.min() >= 1 and (left.max() == 1) == (plausibility == 1.0)


def test_greedy_follows_the_formula() -> None:
    models, text = [randomise(decoder), amateur(1), amateur(2)], draw_tokens(2, 3)
    wrapped = Contrastive(models[0], models[1:], strength=2.0, plausibility=0.05)
    out = generate(wrapped, text, 9, temperature=0)
    assert not torch.equal(out, generate(models[0], text, 9, temperature=0))
    for _ in range(9):
        text = torch.cat((text, score_by_hand(models, text, 2.0, 0.05)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(out, text[:, 3:])
    assert len(out.unique()) > 2


def test_nothing_against_it_is_the_model_itself() -> None:
    model, text = randomise(decoder), draw_tokens(3, 4)
    # A plausibility so small that it rules nothing out.
    for wrapped in (
        Contrastive(model, [amateur(1)], strength=0.0, plausibility=1e-30),
        Contrastive(model, [randomise(decoder)], strength=3.0, plausibility=1e-30),
    ):
        for temperature in (0.0, 1.0):
            plain = generate(model, text, 9, temperature=temperature)
            assert torch.equal(generate(wrapped, text, 9, temperature=temperature), plain)


def test_implausible_tokens_are_never_drawn() -> None:
    wrapped = Contrastive(randomise(decoder), [amateur(1)], strength=0.5, plausibility=1.0)
    text = draw_tokens(3, 4)
    assert torch.equal(generate(wrapped, text, 9, temperature=5.0), generate(wrapped.model, text, 9, temperature=0.0))


@pytest.mark.parametrize(
    "name", ["plain", "kv_heads", "window", "looped-token_shift", "given_context", "projection=Latent"]
)
@torch.no_grad()
def test_cached_equals_uncached(name: str) -> None:
    build: Build = BUILDS[name]
    wrapped = Contrastive(randomise(build), [randomise(build), amateur(3)], plausibility=0.001)
    with torch.no_grad():
        wrapped.readers[1].token_embedding.weight.mul_(-1)
    text, inputs = example(3, 9)
    lengths = torch.tensor([4, 2, 3])
    whole = wrapped(text, inputs=inputs)
    cache = wrapped.new_cache(3, 9)
    first = wrapped(text[:, :4], lengths=lengths, inputs=crop(inputs, slice(0, 4)), cache=cache, last_only=True)
    assert torch.allclose(first[:, 0], whole[torch.arange(3), lengths - 1])
    order = torch.tensor([2, 0])
    cache.select(order)
    text, whole, lengths, condition = text[order], whole[order], lengths[order], inputs.condition[order]
    for at in range(2):
        token = text.gather(1, (lengths + at)[:, None])
        step = wrapped(token, inputs=Inputs(condition=condition), cache=cache)
        assert torch.allclose(step[:, 0], whole[torch.arange(2), lengths + at])
    cache.truncate(lengths)
    both = text.gather(1, lengths[:, None] + torch.arange(2))
    again = wrapped(both, inputs=Inputs(condition=condition), cache=cache)
    assert torch.allclose(again, whole.gather(1, (lengths[:, None] + torch.arange(2))[..., None].expand(-1, -1, VOCAB)))


@torch.no_grad()
def test_a_joint_memory_repeats_and_reorders_its_rows() -> None:
    wrapped, text = Contrastive(randomise(decoder), [amateur(1)]), draw_tokens(2, 5)
    cache = wrapped.new_cache(2, 6)
    wrapped(text, cache=cache)
    assert cache.bound == 5
    cache.repeat(2)
    cache.reorder(torch.tensor([1, 0, 3, 3]))
    new = draw_tokens(4, 1)
    rows = torch.cat((text[[0, 0, 1, 1]], new), dim=1)
    assert torch.allclose(wrapped(new, cache=cache)[:, 0], wrapped(rows)[:, -1])


@pytest.mark.parametrize(
    "params", [SamplingParams(temperature=0), SamplingParams(filters=[TopK(3)], end=4)], ids=["greedy", "sampled"]
)
def test_a_row_alone_or_among_others_that_come_and_go(params: SamplingParams) -> None:
    wrapped = Contrastive(randomise(decoder), [amateur(1), amateur(2)])
    asked = [Request(prompt=draw_tokens(1, 1 + row)[0], max_new_tokens=9 - row, seed=row) for row in range(5)]
    together = run_requests(wrapped, asked, SamplingParams(**{**vars(params), "batch": 2}))
    alone = [run_requests(wrapped, [request], params)[0] for request in asked]
    assert [result.tokens for (result,) in together] == [result.tokens for (result,) in alone]
    for method in (PromptLookup(), Draft(wrapped.model)):
        guessed = run_requests(wrapped, asked, params, method)
        assert [result.tokens for (result,) in guessed] == [result.tokens for (result,) in alone]


def build_limited(length: int) -> Decoder:
    return decoder(embeddings=[partial(LearnedPositions, max_length=length)])


def test_keeps_the_protocol_and_describes_the_models() -> None:
    model, others = build_limited(16), [decoder(), build_limited(12)]
    wrapped = Contrastive(model, others)
    assert isinstance(wrapped, Autoregressive)
    assert (wrapped.vocab_size, wrapped.max_length, wrapped.training) == (VOCAB, 12, True)
    assert Contrastive(decoder(), [decoder()]).max_length is None
    assert not any(other.training for other in others), "an amateur is never trained here"
    assert wrapped.train(False) is wrapped and not model.training
    assert wrapped.train(True) is wrapped and model.training and not others[0].training


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Contrastive(decoder(), []),
            "contrastive decoding has no amateurs; give at least one model to compare with",
        ),
        (
            lambda: Contrastive(decoder(), [decoder(), Decoder(7, dim=8, depth=1, attention=attention())]),
            "an amateur has a vocabulary of 7 tokens and the model one of 11; give amateurs that were trained with the "
            "same tokenizer",
        ),
        (
            lambda: Contrastive(decoder(), [decoder()], strength=-0.1),
            "contrastive decoding has strength -0.1, which must be at least 0",
        ),
        (
            lambda: Contrastive(decoder(), [decoder()], plausibility=0.0),
            "contrastive decoding has plausibility 0.0, which must be above 0 and at most 1",
        ),
        (
            lambda: Contrastive(decoder(), [decoder()], plausibility=1.1),
            "contrastive decoding has plausibility 1.1, which must be above 0 and at most 1",
        ),
    ],
    ids=["none", "vocabulary", "strength", "zero", "above"],
)
def test_refuses(build: Callable[[], Contrastive], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build()
