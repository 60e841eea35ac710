"""Classifier-free guidance: a formula over two forwards, with and without the context."""

import re
from collections.abc import Callable

import pytest
import torch
from catalogue import CONDITION, CONTEXT, RECIPES, VOCAB, context_decoder, crop, decoder, example, randomise
from encoder_catalogue import PAIRS, make_inputs, pair, source
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.engine import generate, run_requests
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.generation.models.guided import Guided
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams
from lightning_xt.models.encoder_decoder import EncoderDecoder

END = 2
SCALE = 2.5


def encode_empty(model: EncoderDecoder) -> Inputs:
    """Encode a source that is empty except for its end."""
    return model.encode(torch.tensor([[END]]), inputs=make_inputs(1, 1))


def draw_tokens(rows: int, n: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, n))


@torch.no_grad()
def score_by_hand(model: EncoderDecoder, src: Tensor, mask: Tensor, text: Tensor, scale: float) -> Tensor:
    """Compute guided log-probabilities by full forwards of the encoder-decoder; not normalized."""
    given = model(src, text, mask).log_softmax(-1)
    free = model(torch.full((len(text), 1), END), text).log_softmax(-1)
    return (1 - scale) * free + scale * given


@torch.no_grad()
def test_scores_are_those_of_the_formula() -> None:
    model, (src, mask), text = randomise(pair), source(3, 7), draw_tokens(3, 5)
    known, nothing = model.encode(src, mask), model.encode(torch.tensor([[END]]))
    for scale in (0.0, 0.5, 1.0, SCALE):
        got = Guided(model.decoder, nothing, scale)(text, inputs=known)
        assert torch.allclose(got, score_by_hand(model, src, mask, text, scale), atol=1e-12)
    assert torch.allclose(
        Guided(model.decoder, nothing, 1.0)(text, inputs=known), model(src, text, mask).log_softmax(-1)
    )


@torch.no_grad()
def test_greedy_and_draws_follow_the_formula() -> None:
    model, (src, mask) = randomise(pair), source(2, 7)
    guided, known = Guided(model.decoder, model.encode(torch.tensor([[END]])), SCALE), model.encode(src, mask)
    text = torch.tensor([[1], [1]])
    out = generate(guided, text, 9, temperature=0, inputs=known)
    for _ in range(9):
        text = torch.cat((text, score_by_hand(model, src, mask, text, SCALE)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(out, text[:, 1:])
    assert len(out.unique()) > 2
    assert not torch.equal(out, generate(model.decoder, text[:, :1], 9, temperature=0, inputs=known))


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_scale_of_one_is_the_model_itself(temperature: float) -> None:
    model, (src, mask) = randomise(pair), source(3, 7)
    known, start = model.encode(src, mask), draw_tokens(3, 2)
    plain = generate(model.decoder, start, 9, temperature=temperature, inputs=known)
    guided = Guided(model.decoder, model.encode(torch.tensor([[END]])), 1.0)
    assert torch.equal(generate(guided, start, 9, temperature=temperature, inputs=known), plain)


@torch.no_grad()
@pytest.mark.parametrize("name", ["plain", "kv_heads", "window", "looped-token_shift", "norm=AdaptiveRMSNorm"])
def test_cached_equals_uncached(name: str) -> None:
    model, (src, mask) = randomise(PAIRS[name]), source(3, 7)
    beside, text, lengths = make_inputs(3, 9), draw_tokens(3, 9), torch.tensor([4, 2, 3])
    known = model.encode(src, mask, inputs=beside)
    guided = Guided(model.decoder, Inputs(context=encode_empty(model).context), SCALE)
    whole = guided(text, inputs=known)
    cache = guided.new_cache(3, 9)
    first = guided(text[:, :4], lengths=lengths, inputs=crop(known, slice(0, 4)), cache=cache, last_only=True)
    assert torch.allclose(first[:, 0], whole[torch.arange(3), lengths - 1])
    at = lengths.clone()
    for _ in range(4):
        token = text.gather(1, at[:, None])
        step = guided(token, inputs=Inputs(condition=known.condition), cache=cache)
        assert torch.allclose(step[:, 0], whole[torch.arange(3), at])
        at += 1


def make_requests(model: EncoderDecoder) -> list[Request]:
    src, mask = source(5, 7)
    known = [model.encode(src[[row], : 7 - row], mask[[row], : 7 - row]) for row in range(5)]
    return [
        Request(prompt=torch.tensor([1, *range(row % 3)]), max_new_tokens=5 + row, seed=row, inputs=known[row])
        for row in range(5)
    ]


@torch.no_grad()
@pytest.mark.parametrize(
    "params", [SamplingParams(temperature=0), SamplingParams(filters=[TopK(3)], end=4)], ids=["greedy", "sampled"]
)
def test_a_row_alone_or_among_others_that_come_and_go(params: SamplingParams) -> None:
    model = randomise(pair)
    guided, requests = Guided(model.decoder, model.encode(torch.tensor([[END]])), SCALE), make_requests(model)
    together = run_requests(guided, requests, SamplingParams(**{**vars(params), "batch": 2}))
    alone = [run_requests(guided, [request], params)[0] for request in requests]
    assert [result.tokens for (result,) in together] == [result.tokens for (result,) in alone]
    assert run_requests(guided, requests, params, PromptLookup())[0][0].tokens == alone[0][0].tokens


@torch.no_grad()
def test_beams_search_among_guided_scores() -> None:
    model, (src, mask) = randomise(pair), source(5, 7)
    guided, requests = Guided(model.decoder, model.encode(torch.tensor([[END]])), SCALE), make_requests(model)
    greedy = run_requests(guided, requests, SamplingParams(temperature=0, end=4))
    one, three = (run_requests(guided, requests, SamplingParams(end=4), BeamSearch(beams=beams)) for beams in (1, 3))
    assert [result.tokens for (result,) in one] == [result.tokens for (result,) in greedy]
    assert [result.tokens for (result,) in three] != [result.tokens for (result,) in greedy]
    for row, (request, (result,)) in enumerate(zip(requests, three, strict=True)):
        text = torch.cat((request.prompt, torch.tensor(result.tokens)))[None]
        scores = score_by_hand(model, src[[row], : 7 - row], mask[[row], : 7 - row], text, SCALE).log_softmax(-1)
        drawn = scores[0, len(request.prompt) - 1 : -1].gather(1, torch.tensor(result.tokens)[:, None])
        assert result.log_probs == pytest.approx(drawn[:, 0].tolist())


@torch.no_grad()
def test_a_condition_can_be_guided_too() -> None:
    model = randomise(lambda: decoder(**RECIPES["norm=AdaptiveRMSNorm"]))
    text, inputs = example(2, 5)
    inputs, nothing = Inputs(condition=inputs.condition), torch.zeros(1, CONDITION, dtype=torch.float64)
    got = Guided(model, Inputs(condition=nothing), SCALE)(text, inputs=inputs)
    given = model(text, inputs=inputs).log_softmax(-1)
    free = model(text, inputs=Inputs(condition=nothing.expand(2, -1))).log_softmax(-1)
    assert torch.allclose(got, free + SCALE * (given - free))
    assert not torch.allclose(given, free)


def test_keeps_the_protocol_and_describes_the_model() -> None:
    model = context_decoder(position=None)
    guided = Guided(model, Inputs(context=torch.zeros(1, 1, CONTEXT)))
    assert isinstance(guided, Autoregressive)
    assert (guided.vocab_size, guided.max_length, guided.training) == (VOCAB, None, True)
    assert guided.train(False) is guided
    assert not model.training and not guided.training


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Guided(decoder(), Inputs(context=torch.zeros(1, 1, 5)), -1),
            "guidance has scale -1, which must be at",
        ),
        (
            lambda: Guided(decoder(), Inputs()),
            "guidance replaces the context or the condition of each row, but its unconditional inputs are Inputs(); "
            "give Inputs(context=...), Inputs(condition=...) or both",
        ),
        (
            lambda: Guided(decoder(), Inputs(context=torch.zeros(1, 1, 5), types=torch.zeros(1, 3, dtype=torch.long))),
            "of each row, but its unconditional inputs are Inputs(types=...); give Inputs(context=...)",
        ),
        (
            lambda: Guided(decoder(), Inputs(context=torch.zeros(2, 1, 5))),
            "the unconditional inputs of guidance have 2 rows in context; give one, which is used for all rows",
        ),
    ],
    ids=["scale", "nothing", "types", "rows"],
)
def test_refuses(build: Callable[[], Guided], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


def test_a_memory_of_one_reader_is_refused() -> None:
    guided = Guided(context_decoder(position=None), Inputs(context=torch.zeros(1, 1, CONTEXT)))
    with pytest.raises(TypeError, match="2 models need a JointCache, but the cache is a Cache"):
        guided(draw_tokens(1, 2), cache=guided.model.new_cache(1, 5))
