"""Beam search against all sequences, and against a search without a cache."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from catalogue import (
    BUILDS,
    CONTEXT,
    DEPTH,
    DIM,
    VECTORS,
    VOCAB,
    attention,
    context_options,
    crop,
    decoder,
    example,
    randomise,
)
from encoder_catalogue import PAIRS, make_inputs, source
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.engine import run_requests
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.no_repeat_ngram import NoRepeatNgram
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.history import History
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.methods.stochastic_beam_search import StochasticBeamSearch
from lightning_xt.generation.requests import GeneratedToken, Request, Result, SamplingParams
from lightning_xt.models.decoder import Decoder

END = 4  # a token with which about half of the texts end
TINY, LAST = 3, 2  # a vocabulary small enough to list all texts, and its end token

LANGUAGE = [
    "plain",
    "attention=Mamba2",
    "attention=Hybrid",
    "kv_heads",
    "window",
    "memory-window-kv_heads-alibi",
    "memory-forgetting",
    "latent-query_latent-window",
    "looped-token_shift",
    "embeddings=LearnedPositions",
    "embeddings=TypeEmbedding",
    "norm=AdaptiveRMSNorm",
    "given_context-rotary-kv_heads",
    "given_context-latent",
    "given_context-relative_bias",
    "given_context-value_residual-memory",
]
TRANSLATION = [
    "plain",
    "kv_heads",
    "window",
    "projection=Latent",
    "memory",
    "position=RelativeBias",
    "shift=TokenShift",
    "qk_norm=AdaptiveRMSNorm",
]


def tiny(**options: Any) -> Decoder:
    return Decoder(TINY, dim=DIM, depth=DEPTH, attention=attention(), **options)


def tiny_with_context() -> Decoder:
    return tiny(**context_options(position=None))


def close(found: list[Result], wanted: list[Result]) -> None:
    assert [each.tokens for each in found] == [each.tokens for each in wanted]
    for mine, other in zip(found, wanted, strict=True):
        assert mine.log_probs == pytest.approx(other.log_probs, abs=1e-9)
        assert mine.score == pytest.approx(other.score, abs=1e-9)


@torch.no_grad()
def next_log_probs(model: Decoder, texts: Tensor, request: Request, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of each text's next token, by the model and after temperature and filters."""
    rows, n = texts.shape
    given = Inputs() if request.inputs is None else request.inputs
    types = given.types
    if types is not None:
        types = torch.cat((types, types[:, -1:].expand(1, n - types.shape[1])), dim=1)
    repeated = {
        name: None if value is None else value.expand(rows, *value.shape[1:])
        for name, value in {**vars(given), "types": types}.items()
    }
    logits = model(texts, inputs=Inputs(**repeated))[:, -1]
    prompts = torch.full((rows,), len(request.prompt))
    changed = logits if params.temperature in (0, 1) else logits / params.temperature
    for apply in params.filters:
        changed = apply(changed, History(texts, prompts, torch.full((rows,), n), params.end))
    return logits.log_softmax(-1), changed.log_softmax(-1)


def naive(
    model: Decoder,
    request: Request,
    params: SamplingParams,
    *,
    beams: int,
    n_best: int,
    length_penalty: float,
    patience: float | None = 1.0,
) -> list[Result]:
    """Search by beams as defined, without a cache and without finishing early."""
    running: list[tuple[float, list[int], list[float]]] = [(0.0, [], [])]
    ended: list[Result] = []
    for step in range(1, request.max_new_tokens + 1):
        texts = torch.tensor([request.prompt.tolist() + tokens for _, tokens, _ in running])
        log_probs, changed = (each.tolist() for each in next_log_probs(model, texts, request, params))
        grown = [
            (total + changed[row][word], [*tokens, word], [*own, log_probs[row][word]])
            for row, (total, tokens, own) in enumerate(running)
            for word in range(model.vocab_size)
            if changed[row][word] > float("-inf")
        ]
        grown.sort(key=lambda text: -text[0])
        for total, tokens, own in grown[:beams]:
            if tokens[-1] == params.end or step == request.max_new_tokens:
                ended.append(Result(tokens, own, total / step**length_penalty))
        running = [text for text in grown if text[1][-1] != params.end][:beams]
        ended.sort(key=lambda result: -result.score)
        if not running:
            break
        enough = patience is not None and len(ended) >= max(patience * beams, n_best)
        if enough and ended[n_best - 1].score >= running[0][0] / step**length_penalty:
            break
    return ended[:n_best]


# All sequences --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def list_texts(model: Decoder, request: Request, end: int | None) -> list[Result]:
    """Return all possible texts, the most likely first."""
    every = torch.cartesian_prod(*[torch.arange(TINY)] * request.max_new_tokens)
    context = None if request.inputs is None else request.inputs.context
    inputs = Inputs() if context is None else Inputs(context=context.expand(len(every), -1, -1))
    logits = model(torch.cat((request.prompt.expand(len(every), -1), every), dim=1), inputs=inputs)
    log_probs = logits[:, len(request.prompt) - 1 : -1].log_softmax(-1).gather(2, every[..., None])[..., 0]
    texts = {}
    for tokens, own in zip(every.tolist(), log_probs.tolist(), strict=True):
        cut = tokens.index(end) + 1 if end in tokens else request.max_new_tokens
        texts[tuple(tokens[:cut])] = Result(tokens[:cut], own[:cut], sum(own[:cut]))
    return sorted(texts.values(), key=lambda result: -result.score)


def penalise(texts: list[Result], length_penalty: float) -> list[Result]:
    scored = [replace(text, score=text.score / len(text.tokens) ** length_penalty) for text in texts]
    return sorted(scored, key=lambda result: -result.score)


@pytest.mark.parametrize("build", [tiny, tiny_with_context])
@pytest.mark.parametrize(("end", "length", "number"), [(LAST, 4, 31), (None, 3, 27)])
def test_wide_enough_it_is_a_search_of_all(
    build: Callable[[], Decoder], end: int | None, length: int, number: int
) -> None:
    model, orders = randomise(build), set()
    for prompt in ([1, 0], [2]):
        context = torch.randn(1, VECTORS, CONTEXT, dtype=torch.float64)
        inputs = Inputs(context=context) if build is tiny_with_context else None
        request = Request(prompt=torch.tensor(prompt), max_new_tokens=length, inputs=inputs)
        texts = list_texts(model, request, end)
        assert len(texts) == number
        for alpha in (0, 0.6, 1, 3.0):
            wanted = penalise(texts, alpha)
            orders.add((len(prompt), *(tuple(text.tokens) for text in wanted)))
            for n_best in (2, number):
                method = BeamSearch(beams=number + 3, n_best=n_best, length_penalty=alpha)
                close(run_requests(model, [request], SamplingParams(end=end), method)[0], wanted[:n_best])
    assert len(orders) == (2 if end is None else 8), "or the length penalty would show nothing"


def test_gives_fewer_texts_where_no_more_are_possible() -> None:
    request = Request(prompt=torch.tensor([1]), max_new_tokens=2)
    found = run_requests(randomise(tiny), [request], SamplingParams(end=LAST), BeamSearch(beams=20, n_best=20))[0]
    assert len(found) == 7 == len({tuple(each.tokens) for each in found})
    only = run_requests(randomise(tiny), [request], SamplingParams(filters=[TopK(1)]), BeamSearch(beams=5, n_best=5))[0]
    assert len(only) == 1


# No cache -------------------------------------------------------------------------------------------------------------

LENGTHS, LIMITS = (5, 2, 3, 1), (7, 9, 4, 6)


def make_requests(rows: int, tokens: Tensor, inputs: Inputs) -> list[Request]:
    return [
        Request(
            prompt=tokens[row, : LENGTHS[row]],
            max_new_tokens=LIMITS[row],
            seed=row,
            inputs=crop(inputs, slice(LENGTHS[row]), slice(row, row + 1)),
        )
        for row in range(rows)
    ]


def language(name: str) -> tuple[Decoder, list[Request]]:
    tokens, inputs = example(4, 5)
    return randomise(BUILDS[name]), make_requests(4, tokens, inputs)


def translation(name: str) -> tuple[Decoder, list[Request]]:
    model = randomise(PAIRS[name])
    src, mask = source(4, 7)
    tokens = torch.randint(0, VOCAB, (4, 5))
    with torch.no_grad():
        inputs = model.encode(src, mask, inputs=make_inputs(4, 5))
    return model.decoder, make_requests(4, tokens, inputs)


CASES = [
    *(pytest.param(language, name, id=f"language-{name}") for name in LANGUAGE),
    *(pytest.param(translation, name, id=f"translation-{name}") for name in TRANSLATION),
]


@pytest.mark.parametrize(("make", "name"), CASES)
def test_equals_a_search_without_a_memory(make: Callable[[str], tuple[Decoder, list[Request]]], name: str) -> None:
    model, requests = make(name)
    params = SamplingParams(end=END)
    options = {"beams": 3, "n_best": 3, "length_penalty": 0.7}
    found = run_requests(model, requests, params, BeamSearch(**options))
    for request, results in zip(requests, found, strict=True):
        close(results, naive(model, request, params, **options))


@pytest.mark.parametrize("batch", [1, 4, 8, 64])
def test_a_sentence_alone_or_among_others(batch: int) -> None:
    model, requests = translation("plain")
    method = BeamSearch(beams=4, n_best=2)
    together = run_requests(model, requests, SamplingParams(end=END, batch=batch), method)
    for number, request in enumerate(requests):
        close(together[number], run_requests(model, [request], SamplingParams(end=END), method)[0])


def test_contexts_of_different_lengths_are_searched_together() -> None:
    model, requests = translation("plain")
    short = [
        Request(prompt=r.prompt, max_new_tokens=r.max_new_tokens, inputs=Inputs(context=r.inputs.context[:, : n + 2]))
        if r.inputs
        else r
        for n, r in enumerate(requests)
    ]
    found = run_requests(model, short, SamplingParams(end=END), BeamSearch())
    for results, request in zip(found, short, strict=True):
        close(results, naive(model, request, SamplingParams(end=END), beams=4, n_best=1, length_penalty=1.0))


@pytest.mark.parametrize("end", [None, END])
def test_one_beam_is_greedy(end: int | None) -> None:
    for make, name in ((language, "plain"), (translation, "kv_heads")):
        model, requests = make(name)
        greedy = run_requests(model, requests, SamplingParams(temperature=0, end=end), Sample())
        found = run_requests(model, requests, SamplingParams(end=end), BeamSearch(beams=1, length_penalty=0))
        for mine, other in zip(found, greedy, strict=True):
            close(mine, other)
        longer = run_requests(model, requests, SamplingParams(end=end), BeamSearch(beams=1, length_penalty=3))
        assert [each[0].tokens for each in longer] == [each[0].tokens for each in greedy]


# Choices --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.7])
@pytest.mark.parametrize("filters", [(), (TopK(4),), (NoRepeatNgram(1), TopK(6))], ids=["none", "top_k", "history"])
def test_temperature_and_filters_come_first(temperature: float, filters: tuple[Filter, ...]) -> None:
    model, requests = language("plain")
    params = SamplingParams(temperature=temperature, filters=filters, end=END)
    options = {"beams": 4, "n_best": 4, "length_penalty": 1.0}
    for results, request in zip(run_requests(model, requests, params, BeamSearch(**options)), requests, strict=True):
        close(results, naive(model, request, params, **options))


def test_a_window_is_asked_for_or_built_in() -> None:
    (plain, requests), (built, _) = language("plain"), language("window")
    found = run_requests(plain, requests, SamplingParams(end=END, window=3), BeamSearch(beams=3, n_best=2))
    for mine, other in zip(
        found, run_requests(built, requests, SamplingParams(end=END), BeamSearch(beams=3, n_best=2)), strict=True
    ):
        close(mine, other)
    assert found != run_requests(plain, requests, SamplingParams(end=END), BeamSearch(beams=3, n_best=2))


class Counted:
    """Model that counts its forwards."""

    def __init__(self, model: Decoder) -> None:
        self.model, self.forwards, self.training, self.rows = model, 0, True, []
        self.vocab_size, self.max_length, self.recurrences = model.vocab_size, model.max_length, ()

    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> Any:
        self.cache = self.model.new_cache(batch, capacity, slack=slack, window=window)
        return self.cache

    def train(self, mode: bool = True) -> "Counted":
        self.training = mode
        return self

    def __call__(self, tokens: Tensor, **given: Any) -> Tensor:
        self.forwards += 1
        self.rows.append(len(tokens))
        return self.model(tokens, **given)


@pytest.mark.parametrize("patience", [1.0, 2.5, None])
@pytest.mark.parametrize("length_penalty", [0.0, 0.5])
def test_finishes_early_with_what_it_would_find_anyway(length_penalty: float, patience: float | None) -> None:
    model = Counted(randomise(tiny))
    options = {"beams": 6, "n_best": 1, "length_penalty": length_penalty, "patience": patience}
    early = 0
    for first in range(TINY):
        request = Request(prompt=torch.tensor([first]), max_new_tokens=12)
        model.forwards = 0
        found = run_requests(model, [request], SamplingParams(end=LAST), BeamSearch(**options))[0]
        steps = model.forwards
        model.forwards = 0
        close(found, naive(model, request, SamplingParams(end=LAST), **options))
        early += steps < model.forwards
    assert early > 0


def test_finished_sentences_cost_no_more_work() -> None:
    model, requests = translation("plain")
    counted = Counted(model)
    run_requests(counted, requests, SamplingParams(), BeamSearch(beams=3))
    assert counted.rows == [4, *[12] * 3, *[9] * 2, 6, *[3] * 2]
    assert counted.training


@pytest.mark.parametrize("ask_every", [1, 3, 16])
@pytest.mark.parametrize(
    "method",
    [BeamSearch(beams=5, n_best=5, length_penalty=0.7), StochasticBeamSearch(beams=5, n_best=5)],
    ids=["search", "stochastic"],
)
def test_a_device_that_is_asked_now_and_then_finds_the_same(
    monkeypatch: pytest.MonkeyPatch, method: Method, ask_every: int
) -> None:
    model, requests = translation("plain")
    wanted = run_requests(model, requests, SamplingParams(end=END), method)
    ended = [each.tokens[-1] == END for results in wanted for each in results]
    assert any(ended) and not all(ended)
    monkeypatch.setattr("lightning_xt.generation.search.beams.is_on_host", lambda device: False)
    monkeypatch.setattr("lightning_xt.generation.search.beams.SYNC_EVERY", ask_every)
    for mine, other in zip(run_requests(model, requests, SamplingParams(end=END), method), wanted, strict=True):
        close(mine, other)


def test_sentences_share_their_context_which_is_never_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests = translation("plain")
    counted, call, seen = Counted(model), Counted.__call__, set()

    def watch(self: Counted, tokens: Tensor, **given: Any) -> Tensor:
        logits = call(self, tokens, **given)
        keys = [each.fixed["context"].keys for each in self.cache if each.fixed]
        assert [len(each) for each in keys] == [2] * DEPTH
        seen.add(tuple(each.data_ptr() for each in keys))
        return logits

    monkeypatch.setattr(Counted, "__call__", watch)
    same = [replace(request, max_new_tokens=7) for request in requests[:2]]
    run_requests(counted, same, SamplingParams(), BeamSearch(beams=5))
    assert counted.rows == [2, *[10] * 6]
    assert len(seen) == 1


def test_patience_finds_better_texts() -> None:
    model, better = randomise(decoder), 0
    for first in range(VOCAB):
        request = Request(prompt=torch.tensor([first]), max_new_tokens=13)
        scores = [
            run_requests(model, [request], SamplingParams(end=4), BeamSearch(beams=2, patience=patience))[0][0].score
            for patience in (0.5, 1.0, None)
        ]
        assert scores == sorted(scores)
        better += scores[0] < scores[1] or scores[1] < scores[2]
    assert better > 1


def test_is_left_as_it_was_when_closed_early() -> None:
    model, requests = language("plain")
    model.train()
    steps = BeamSearch()(model, requests, SamplingParams(end=END))
    first = next(steps)
    assert isinstance(first, GeneratedToken)
    assert not model.training
    steps.close()
    assert model.training


def test_gives_whole_texts_the_best_first() -> None:
    model, requests = language("plain")
    drawn = list(BeamSearch(beams=4, n_best=3)(model, requests, SamplingParams(end=END)))
    for number in range(4):
        own = [each for each in drawn if each.request == number]
        assert [each.sequence for each in own] == sorted(each.sequence for each in own)
        lasts = [each for each in own if each.last]
        assert [each.sequence for each in lasts] == [0, 1, 2]
        assert [each.score for each in lasts] == sorted((each.score for each in lasts), reverse=True)
        assert all(each.score is None for each in own if not each.last)


# A sure model ---------------------------------------------------------------------------------------------------------


class Sure:
    """Model that writes the row that a prompt names, and is sure of it: other tokens are thousands of times rarer."""

    vocab_size, max_length, recurrences, training = 11, None, (), False

    def __init__(self, rows: list[list[int]]) -> None:
        torch.manual_seed(0)
        self.logits = 2 * torch.rand(len(rows), 64, self.vocab_size, dtype=torch.double)
        for row, tokens in enumerate(rows):
            for step, token in enumerate(tokens):
                self.logits[row, step, token] = 12
        self.steps = 0

    def train(self, mode: bool = True) -> "Sure":
        return self

    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> Cache:
        self.steps = 0
        return Cache(batch, capacity, calls=1)

    def __call__(self, tokens: Tensor, *, cache: Cache, **given: object) -> Tensor:
        if self.steps == 0:
            cache[0].running["row"] = tokens[:, 0]
        self.steps += 1
        return self.logits[cache[0].running["row"], self.steps - 1][:, None]


def copy_rows() -> tuple[list[list[int]], list[Request]]:
    """Return rows that end, and requests of them with unlike limits, the last of which cuts its row."""
    torch.manual_seed(1)
    rows = [[*(torch.randint(0, END, (n,)).tolist()), END] for n in (0, 3, 7, 12, 19, 19)]
    limits = [30, 9, 40, 13, 20, 6]
    return rows, [Request(prompt=torch.tensor([row]), max_new_tokens=limit) for row, limit in enumerate(limits)]


@pytest.mark.parametrize("asked_every", [None, 16])
@pytest.mark.parametrize("patience", [0.25, 1.0, None])
def test_cases_d1_a_sure_model_is_never_cut_off(
    monkeypatch: pytest.MonkeyPatch, patience: float | None, asked_every: int | None
) -> None:
    if asked_every is not None:
        monkeypatch.setattr("lightning_xt.generation.search.beams.is_on_host", lambda device: False)
    rows, requests = copy_rows()
    greedy = run_requests(Sure(rows), requests, SamplingParams(temperature=0, end=END), Sample())
    assert [each[0].tokens for each in greedy] == [
        row[:limit] for row, limit in zip(rows, (99,) * 5 + (6,), strict=True)
    ]
    for beams in range(1, 9):
        for penalty in (0.0, 0.6, 1.0, 2.0):
            method = BeamSearch(beams=beams, n_best=min(2, beams), length_penalty=penalty, patience=patience)
            found = run_requests(Sure(rows), requests, SamplingParams(end=END), method)
            for (best, *_), (own, *_) in zip(found, greedy, strict=True):
                assert best.tokens == own.tokens, (beams, penalty)
                assert best.score >= own.score / len(own.tokens) ** penalty - 1e-12


# Stochastic beams -----------------------------------------------------------------------------------------------------


def test_stochastic_beams_draw_what_the_model_says() -> None:
    model = randomise(tiny)
    model.float()
    request = Request(prompt=torch.tensor([1, 0]), max_new_tokens=3)
    texts = {tuple(each.tokens): sum(each.log_probs) for each in list_texts(model, request, LAST)}
    number = 2000
    requests = [Request(prompt=request.prompt, max_new_tokens=3, seed=seed) for seed in range(number)]
    method = StochasticBeamSearch(beams=2, n_best=2)
    found = run_requests(model, requests, SamplingParams(end=LAST, batch=number), method)
    first, second = dict.fromkeys(texts, 0), dict.fromkeys(texts, 0)
    for one, two in found:
        assert one.tokens != two.tokens
        assert one.score >= two.score
        first[tuple(one.tokens)] += 1
        second[tuple(two.tokens)] += 1
    probabilities = {text: torch.tensor(log_prob).exp().item() for text, log_prob in texts.items()}
    after = {
        text: sum(p * probabilities[text] / (1 - p) for other, p in probabilities.items() if other != text)
        for text in texts
    }
    for counts, expected in ((first, probabilities), (second, after)):
        assert sum(expected.values()) == pytest.approx(1, abs=1e-5)
        squares = sum((counts[text] - number * p) ** 2 / (number * p) for text, p in expected.items())
        assert squares < 36.12, "14 degrees of freedom: one in a thousand"
    assert len(texts) == 15


def test_the_same_seed_draws_the_same_texts() -> None:
    model, requests = language("plain")
    method = StochasticBeamSearch(beams=3, n_best=3)
    together = run_requests(model, requests, SamplingParams(end=END), method)
    for number, request in enumerate(requests):
        close(together[number], run_requests(model, [request], SamplingParams(end=END, batch=1), method)[0])
        assert len({tuple(each.tokens) for each in together[number]}) == 3
    other = [
        Request(prompt=r.prompt, max_new_tokens=r.max_new_tokens, seed=r.seed + 100, inputs=r.inputs) for r in requests
    ]
    assert [each[0].tokens for each in run_requests(model, other, SamplingParams(end=END), method)] != [
        each[0].tokens for each in together
    ]


def test_wide_enough_stochastic_beams_are_all_texts() -> None:
    request = Request(prompt=torch.tensor([1]), max_new_tokens=3)
    model = randomise(tiny)
    found = run_requests(model, [request], SamplingParams(end=LAST), StochasticBeamSearch(beams=20, n_best=20))[0]
    wanted = {tuple(each.tokens): each.log_probs for each in list_texts(model, request, LAST)}
    assert {tuple(each.tokens) for each in found} == wanted.keys()
    assert len(found) == len(wanted)
    for each in found:
        assert each.log_probs == pytest.approx(wanted[tuple(each.tokens)], abs=1e-9)


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "method: BeamSearch has beams 0, which must be at least 1"),
        ({"n_best": 0}, "method: BeamSearch has n_best 0, which must be at least 1"),
        ({"length_penalty": -0.5}, "method: BeamSearch has length_penalty -0.5, which must be from 0 to 3"),
        ({"length_penalty": 1000}, "method: BeamSearch has length_penalty 1000, which must be from 0 to 3"),
        ({"length_penalty": float("nan")}, "method: BeamSearch has length_penalty nan, which must be from 0 to 3"),
        ({"patience": 0}, "method: BeamSearch has patience 0, which must be above 0"),
        ({"beams": 2, "n_best": 3}, "method: BeamSearch has n_best 3, but only 2 beams; ask for at most as many"),
    ],
)
def test_cases_d17_refuses_what_no_search_can_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeamSearch(**options)


def test_refuses_to_draw_at_temperature_0() -> None:
    model, requests = language("plain")
    with pytest.raises(ValueError, match="temperature is 0, but method StochasticBeamSearch samples"):
        StochasticBeamSearch()(model, requests, SamplingParams(temperature=0))
