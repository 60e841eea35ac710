"""Decoding: the same tokens for any batch, and draws from the right distribution."""

import gc
import re
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from catalogue import CONTEXT, VOCAB, attention, context_decoder, decoder, randomise
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.row_state import filter_logits
from lightning_xt.generation.engine import build_filters, generate, make_requests, stream
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.history import History
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.contrastive_search import ContrastiveSearch
from lightning_xt.generation.methods.draft import Draft
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.methods.stochastic_beam_search import StochasticBeamSearch
from lightning_xt.generation.models.contrastive import Contrastive
from lightning_xt.generation.models.guided import Guided
from lightning_xt.generation.models.model_wrapper import ModelWrapper
from lightning_xt.generation.noise import sample_tokens
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import SamplingParams
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.projections.latent import Latent
from lightning_xt.nn.shifts.token_shift import TokenShift

BUILDS = {
    "rotary": decoder,
    "window": lambda: decoder(attention=attention(window=3, position=ALiBi)),
    "latent": lambda: decoder(attention=attention(projection=Latent)),
    "forgetting-token_shift": lambda: decoder(attention=attention(position=Forgetting), shift=TokenShift),
    "learned_positions": lambda: decoder(
        attention=attention(position=None), embeddings=[partial(LearnedPositions, max_length=16)]
    ),
}
EACH = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


def draw_tokens(rows: int, n: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, n))


@torch.no_grad()
def decode_by_hand(model: Decoder, prompt: Tensor, seq_len: int) -> Tensor:
    """Decode greedily, recomputing the prefix each time."""
    text = prompt
    for _ in range(seq_len):
        text = torch.cat((text, model(text)[:, -1].argmax(-1, keepdim=True)), dim=1)
    return text[:, prompt.shape[1] :]


def test_a_decoder_keeps_the_protocol() -> None:
    assert isinstance(decoder(), Autoregressive)


@EACH
def test_greedy_equals_recomputing_the_prefix(build: partial) -> None:
    model, prompt = randomise(build), draw_tokens(3, 5)
    out = generate(model, prompt, 11, temperature=0.0)
    assert out.dtype == torch.long and out.shape == (3, 11)
    assert torch.equal(out, decode_by_hand(model, prompt, 11))
    assert len(out.unique()) > 2, "a constant would prove little"


@EACH
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_a_prompt_alone_or_among_others(build: partial, temperature: float) -> None:
    model, prompt, lengths = randomise(build), draw_tokens(3, 5), [5, 1, 3]
    options = {"temperature": temperature, "top_k": 7}
    together = generate(model, prompt, 9, lengths=torch.tensor(lengths), seed=20, **options)
    for row, length in enumerate(lengths):
        alone = generate(model, prompt[[row], :length], 9, seed=20 + row, **options)
        assert torch.equal(together[[row]], alone), row


def test_padding_of_a_prompt_is_never_read() -> None:
    model, prompt = randomise(decoder), draw_tokens(2, 5)
    other = prompt.clone()
    other[1, 2:] = (other[1, 2:] + 1) % VOCAB
    lengths = torch.tensor([5, 2])
    assert torch.equal(generate(model, prompt, 9, lengths=lengths), generate(model, other, 9, lengths=lengths))


def test_the_same_seed_gives_the_same_tokens() -> None:
    model, prompt = randomise(decoder), draw_tokens(2, 5)
    first = generate(model, prompt, 13, seed=3, temperature=2.0)
    assert torch.equal(generate(model, prompt, 13, seed=3, temperature=2.0), first)
    assert not torch.equal(generate(model, prompt, 13, seed=4, temperature=2.0), first)
    same = generate(model, prompt[:1].expand(2, -1), 13, temperature=2.0)
    assert not torch.equal(same[0], same[1]), "rows draw with separate seeds"


def test_streamed_tokens_are_the_generated_ones() -> None:
    model, prompt = randomise(decoder), draw_tokens(2, 5)
    filters = {"top_p": 0.9, "min_p": 0.01}
    params = SamplingParams(temperature=1.5, filters=build_filters(**filters))
    streamed = list(stream(model, make_requests(prompt, 7, seed=5), params))
    assert [token.shape for token in streamed] == [(2,)] * 7
    assert torch.equal(torch.stack(streamed, dim=1), generate(model, prompt, 7, temperature=1.5, seed=5, **filters))


@torch.no_grad()
def test_a_soft_prefix_and_a_context_are_given_once() -> None:
    model, text = randomise(decoder), draw_tokens(2, 6)
    inputs = Inputs(prefix=model.token_embedding(text[:, :2]))
    out = generate(model, text[:, 2:], 9, temperature=0.0, inputs=inputs)
    assert torch.equal(out, generate(model, text, 9, temperature=0.0))
    reader = randomise(lambda: context_decoder(position=None))
    contexts = torch.randn(2, 2, 3, CONTEXT, dtype=torch.float64)
    one, two = (generate(reader, text, 9, temperature=0.0, inputs=Inputs(context=each)) for each in contexts)
    assert not torch.equal(one, two)


# Draws ----------------------------------------------------------------------------------------------------------------


def measure_frequencies(logits: Tensor, draws: int, **options: float) -> Tensor:
    temperature, first = options.pop("temperature", 1.0), torch.zeros(draws, dtype=torch.long)
    params = SamplingParams(temperature=temperature, filters=build_filters(**options))
    changed = filter_logits(logits.expand(draws, -1), History(first[:, None], first, first), params)
    drawn = sample_tokens(changed, temperature, torch.arange(1000, 1000 + draws), first)
    return drawn.bincount(minlength=logits.shape[-1])


# Probabilities 0.4, 0.3, 0.2, 0.1, and those of each request, computed by hand.
REQUESTS = [
    ({}, [0.4, 0.3, 0.2, 0.1]),
    ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
    ({"top_k": 3}, [4 / 9, 3 / 9, 2 / 9, 0]),
    ({"top_p": 0.65}, [4 / 7, 3 / 7, 0, 0]),
    ({"top_p": 0.75}, [4 / 9, 3 / 9, 2 / 9, 0]),
    ({"min_p": 0.6}, [4 / 7, 3 / 7, 0, 0]),
    # Squared and normalized 0.53, 0.3, 0.13, 0.03: two tokens have 0.83, and the second more than half of the first.
    ({"temperature": 0.5, "top_p": 0.8}, [16 / 25, 9 / 25, 0, 0]),
]


@pytest.mark.parametrize(("request_", "expected"), REQUESTS, ids=str)
def test_draws_follow_the_distribution(request_: dict[str, float], expected: list[float]) -> None:
    draws = 4000
    counts = measure_frequencies(torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log(), draws, **request_).tolist()
    assert all(count == 0 for count, p in zip(counts, expected, strict=True) if p == 0)
    chi_squared = sum((count - draws * p) ** 2 / (draws * p) for count, p in zip(counts, expected, strict=True) if p)
    # With 3 degrees of freedom a right sampler exceeds 16.3 once in a thousand seeds; this seed is fixed.
    assert chi_squared < 16.3


def test_draws_follow_each_other_in_one_row() -> None:
    """Later draws of a row with one seed are new, and follow the same distribution."""
    logits, seed = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([9])
    drawn = torch.stack([sample_tokens(logits, 1.0, seed, torch.tensor([step]))[0] for step in range(3000)])
    counts = drawn.bincount(minlength=3).tolist()
    chi_squared = sum((c - 3000 * p) ** 2 / (3000 * p) for c, p in zip(counts, [0.5, 0.25, 0.25], strict=True))
    assert chi_squared < 13.8
    again = int((drawn[1:] == drawn[:-1]).sum())
    # 0.25 + 0.0625 + 0.0625 of neighbours agree by chance.
    assert again == pytest.approx(0.375 * 2999, abs=4 * (2999 * 0.375 * 0.625) ** 0.5)


def test_one_remaining_token_is_the_most_likely() -> None:
    model, prompt = randomise(decoder), draw_tokens(2, 5)
    greedy = generate(model, prompt, 9, temperature=0.0)
    assert torch.equal(generate(model, prompt, 9, top_k=1), greedy)
    assert torch.equal(generate(model, prompt, 9, min_p=1.0), greedy)
    assert torch.equal(generate(model, prompt, 9, top_p=1e-6), greedy)


# What is left behind ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(training: bool) -> None:
    model, prompt = decoder(dropout=0.5).train(training), draw_tokens(2, 5)
    assert torch.equal(generate(model, prompt, 9, temperature=0.0), generate(model, prompt, 9, temperature=0.0))
    assert model.training is training
    drawn = stream(model, make_requests(prompt, 9), SamplingParams())
    next(drawn)
    assert model.training is False
    drawn.close()
    assert model.training is training and model.stack.training is training


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: Contrastive(model, [decoder()])])
def test_cases_p8_frozen_parts_keep_their_mode(wrap: Callable[[Decoder], Any]) -> None:
    model = decoder(dropout=0.5).train()
    model.token_embedding.eval()
    model.stack.sublayers["0_attention"].eval()
    before = [part.training for part in model.modules()]
    generate(wrap(model), draw_tokens(2, 5), 3)
    assert [part.training for part in model.modules()] == before


def test_the_mode_is_restored_after_an_error() -> None:
    model = context_decoder(position=None).train()
    with pytest.raises(ValueError, match="needs Inputs"):
        generate(model, draw_tokens(1, 3), 2)
    assert model.training


def test_an_unread_stream_changes_nothing() -> None:
    model = decoder().train()
    stream(model, make_requests(draw_tokens(1, 3), 2), SamplingParams())
    assert model.training


def test_the_global_random_state_is_untouched() -> None:
    model, prompt = decoder(), draw_tokens(2, 5)
    before = torch.get_rng_state()
    generate(model, prompt, 9)
    assert torch.equal(torch.get_rng_state(), before)


def test_readers_of_a_stream_stay_outside_inference_mode() -> None:
    for _ in stream(decoder(), make_requests(draw_tokens(1, 3), 2), SamplingParams()):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


# Refusals -------------------------------------------------------------------------------------------------------------


def stream_rows(
    model: Decoder,
    prompt: Tensor,
    max_new_tokens: int,
    *,
    lengths: Tensor | None = None,
    temperature: float = 1.0,
    **filters: Any,
) -> Iterator[Tensor]:
    """Stream the tokens that `generate` returns for the same arguments."""
    requests = make_requests(prompt, max_new_tokens, lengths=lengths)
    return stream(model, requests, SamplingParams(temperature=temperature, filters=build_filters(**filters)))


LIMITED = partial(decoder, embeddings=[partial(LearnedPositions, max_length=8)])


@pytest.mark.parametrize(
    ("prompt", "seq_len", "options", "message"),
    [
        ([[1, 2]], 0, {}, "generation has max_new_tokens 0, which must be at least 1"),
        ([[]], 3, {}, "the prompt is empty; give at least one token to start from"),
        ([[1, 2]], 3, {"lengths": [0]}, "the prompt is empty; give at least one token to start from"),
        (
            [[1, 2]],
            3,
            {"lengths": [1, 2]},
            "lengths is [1, 2], but 1 rows of 2 tokens were given; it must be a tensor of",
        ),
        (
            [[1, 2], [3, 4]],
            3,
            {"lengths": [1]},
            "lengths is [1], but 2 rows of 2 tokens were given; it must be a tensor",
        ),
        ([[1, 2]], 3, {"lengths": [3]}, "lengths says 3 tokens, but the rows of the prompt have 2"),
        ([[1, 11]], 3, {}, "the prompt has token 11, outside the vocabulary of 0 to 10"),
        ([[-4, 1]], 3, {}, "the prompt has token -4, outside the vocabulary of 0 to 10"),
        (
            [[1] * 6],
            3,
            {},
            "a prompt of 6 tokens and 3 more make 9, but the model's positions reach only 8 (max_length); "
            "shorten the prompt or ask for at most 2 tokens",
        ),
        ([[1] * 9], 3, {}, "a prompt of 9 tokens and 3 more make 12, but the model's positions reach only 8"),
        ([[1, 2]], 3, {"top_k": 0}, "filters: TopK (top_k) has k 0, which must be at least 1"),
        ([[1, 2]], 3, {"top_p": 0.0}, "filters: TopP (top_p) has p 0.0, which must be above 0 and at most 1"),
        ([[1, 2]], 3, {"min_p": 2.0}, "filters: MinP (min_p) has p 2.0, which must be from 0 to 1"),
        ([[1, 2]], 3, {"temperature": -1.0}, "generation has temperature -1.0, which must be at least 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_before_anything_is_drawn(
    prompt: list[list[int]], seq_len: int, options: dict[str, object], message: str
) -> None:
    if "lengths" in options:
        options = {"lengths": torch.tensor(options["lengths"])}
    for ask in (generate, stream_rows):
        with pytest.raises(ValueError, match=re.escape(message)):
            ask(LIMITED(), torch.tensor(prompt, dtype=torch.long), seq_len, **options)


@pytest.mark.usefixtures("no_shape_checks")
def test_ids_that_are_not_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^prompt has shape \(3,\); it must be \(rows, tokens\); use prompt\[None\]$"):
        generate(decoder(), torch.tensor([1, 2, 3]), 2)
    with pytest.raises(ValueError, match=r"^prompt has shape \(1, 1, 3\); it must be \(rows, tokens\)$"):
        generate(decoder(), torch.ones(1, 1, 3, dtype=torch.long), 2)
    with pytest.raises(TypeError, match=r"^prompt is of type list; it must be a tensor of ids, \(rows, tokens\)$"):
        generate(decoder(), [[1, 2, 3]], 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^lengths is \[3\], but 1 rows of 3 tokens were given"):
        generate(decoder(), torch.ones(1, 3, dtype=torch.long), 2, lengths=[3])  # type: ignore[arg-type]


def test_a_soft_prefix_counts_towards_the_positions() -> None:
    model = LIMITED()
    inputs = Inputs(prefix=torch.zeros(1, 3, model.token_embedding.embedding_dim))
    generate(model, draw_tokens(1, 3), 2, inputs=inputs)
    with pytest.raises(ValueError, match="a prompt of 6 tokens and 3 more make 9"):
        generate(model, draw_tokens(1, 3), 3, inputs=inputs)


def test_a_text_may_fill_all_positions() -> None:
    assert generate(LIMITED(), draw_tokens(1, 5), 3).shape == (1, 3)


def test_no_rows_are_refused() -> None:
    for ask in (generate, stream_rows):
        with pytest.raises(ValueError, match="the prompt has no rows; give at least one"):
            ask(decoder(), torch.zeros(0, 3, dtype=torch.long), 2)


# Scores that are not finite -------------------------------------------------------------------------------------------

METHODS = {
    "sample": Sample(),
    "beams": BeamSearch(beams=3, n_best=2),
    "stochastic": StochasticBeamSearch(beams=3),
    "contrastive": ContrastiveSearch(k=3),
    "lookup": PromptLookup(),
    "draft": Draft(decoder()),
}


class AllMasked(Filter):
    """Filter that masks all tokens of rows with as many generated tokens."""

    def __init__(self, generated: int, value: float) -> None:
        self.generated, self.value = generated, value

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        lost = history.lengths - history.prompts == self.generated
        return logits.masked_fill(lost[:, None], self.value)


@pytest.fixture(params=[True, False], ids=["cpu", "asked_now_and_then"])
def on_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode as on a CPU, or as on a device that is read every few steps."""
    for module in ("search.beams", "batching.scheduler"):
        monkeypatch.setattr(f"lightning_xt.generation.{module}.is_on_host", lambda device: request.param)


@pytest.mark.usefixtures("on_host")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_cases_d9_a_weight_that_is_not_finite(method: Method, value: float) -> None:
    model = randomise(decoder)
    with torch.no_grad():
        next(model.head.parameters())[3] = value
    with pytest.raises(ValueError, match="the model's scores of the next token are not finite, so there is no token"):
        generate(model, draw_tokens(3, 5), 20, method=method)


@pytest.mark.usefixtures("on_host")
@pytest.mark.parametrize(("generated", "value"), [(0, float("-inf")), (3, float("-inf")), (3, float("nan"))])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_cases_d9_a_filter_that_leaves_no_token(method: Method, generated: int, value: float) -> None:
    model = randomise(decoder)
    with pytest.raises(ValueError, match="the filters leave no token with a finite score, but each filter must keep"):
        generate(model, draw_tokens(3, 5), 20, method=method, filters=[AllMasked(generated, value)])


@pytest.mark.usefixtures("on_host")
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_cases_d9_rows_that_have_ended_may_have_any_scores(method: Method) -> None:
    model, prompt = randomise(decoder), draw_tokens(3, 5)
    wanted = generate(model, prompt, 6, method=method)
    assert torch.equal(generate(model, prompt, 6, method=method, filters=[AllMasked(6, float("nan"))]), wanted)


@pytest.mark.parametrize("name", ["sample", "beams", "stochastic", "lookup"])
def test_cases_d9_a_guidance_that_overflows(name: str) -> None:
    guided = Guided(randomise(context_decoder).float(), Inputs(context=torch.randn(1, 2, CONTEXT)), 1e39)
    inputs = Inputs(context=torch.randn(3, 4, CONTEXT))
    with pytest.raises(ValueError, match=r"or the guidance or the contrast is too large \(lower it\)"):
        generate(guided, draw_tokens(3, 5), 4, method=METHODS[name], inputs=inputs)


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_cases_s17_no_generation_leaves_a_cache(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that decodes waits for Python's collector, which would come when the memory is long full."""
    made, new_cache = list[weakref.ref[Cache]](), Decoder.new_cache

    def watch(*args: Any, **options: Any) -> Cache:
        cache = new_cache(*args, **options)
        made.append(weakref.ref(cache))
        return cache

    monkeypatch.setattr(Decoder, "new_cache", watch)
    model, inputs = context_decoder(position=None), Inputs(context=torch.randn(2, 3, CONTEXT))
    gc.collect()
    gc.disable()
    try:
        for seed in range(10):
            generate(model, draw_tokens(2, 3), 3, method=method, seed=seed, inputs=inputs)
        alive = sum(ref() is not None for ref in made)
    finally:
        gc.enable()
    assert len(made) >= 10 and alive == 0


def test_a_stream_needs_a_request() -> None:
    with pytest.raises(ValueError, match=r"^stream has no requests; give at least one$"):
        stream(decoder(), [], SamplingParams())


def test_a_wrapper_must_score_and_make_caches() -> None:
    with pytest.raises(TypeError, match="abstract"):
        type("Forgetful", (ModelWrapper,), {})(decoder())
