"""Contrastive search against one that recomputes the whole prefix for every candidate."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from catalogue import BUILDS, DEPTH, VOCAB, crop, example, randomise
from encoder_catalogue import PAIRS, make_inputs, source
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.engine import run_requests
from lightning_xt.generation.filters.no_repeat_ngram import NoRepeatNgram
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.history import History
from lightning_xt.generation.methods.contrastive_search import ContrastiveSearch
from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.requests import Request, Result, SamplingParams
from lightning_xt.models.decoder import Decoder

END = 4  # a token with which about half of the texts end
LENGTHS, LIMITS = (5, 2, 3, 1), (7, 9, 4, 6)
LANGUAGE = [
    "plain",
    "attention=GatedDeltaNet",
    "attention=Hybrid",
    "kv_heads",
    "window_2",
    "memory-window-kv_heads-alibi",
    "memory-forgetting",
    "latent-query_latent-window",
    "looped-token_shift",
    "embeddings=LearnedPositions",
    "embeddings=TypeEmbedding",
    "norm=AdaptiveRMSNorm",
    "given_context-relative_bias",
]
TRANSLATION = ["plain", "kv_heads", "projection=Latent", "qk_norm=AdaptiveRMSNorm"]


def make_requests(tokens: Tensor, inputs: Inputs) -> list[Request]:
    return [
        Request(prompt=tokens[row, :n], max_new_tokens=most, inputs=crop(inputs, slice(n), slice(row, row + 1)))
        for row, (n, most) in enumerate(zip(LENGTHS, LIMITS, strict=True))
    ]


def language(name: str) -> tuple[Decoder, list[Request]]:
    return randomise(BUILDS[name]), make_requests(*example(4, 5))


def translation(name: str) -> tuple[Decoder, list[Request]]:
    model = randomise(PAIRS[name])
    tokens = torch.randint(0, VOCAB, (4, 5))
    with torch.no_grad():
        return model.decoder, make_requests(tokens, model.encode(*source(4, 7), inputs=make_inputs(4, 5)))


@torch.no_grad()
def compute_states(model: Decoder, texts: Tensor, request: Request) -> Tensor:
    rows, n = texts.shape
    given = Inputs() if request.inputs is None else request.inputs
    types = given.types
    if types is not None:
        types = torch.cat((types, types[:, -1:].expand(1, n - types.shape[1])), dim=1)
    repeated = {
        name: None if value is None else value.expand(rows, *value.shape[1:])
        for name, value in {**vars(given), "types": types}.items()
    }
    return model.compute_states(texts, inputs=Inputs(**repeated))


def naive(model: Decoder, request: Request, params: SamplingParams, k: int, alpha: float) -> Result:
    """Search one token after the other, each candidate read with its whole prefix."""
    text, log_probs = request.prompt[None], []
    while len(log_probs) < request.max_new_tokens:
        logits = model.head(compute_states(model, text, request)[:, -1:])[:, -1].detach()
        history = History(text, torch.tensor([len(request.prompt)]), torch.tensor([text.shape[1]]), END)
        changed = logits / (params.temperature or 1)
        for apply in params.filters:
            changed = apply(changed, history)
        shares, words = changed.softmax(-1)[0].topk(k)
        states = compute_states(model, torch.cat((text.expand(k, -1), words[:, None]), dim=1), request)
        best = None
        for share, word, own in zip(shares.tolist(), words.tolist(), states, strict=True):
            likeness = float(torch.cosine_similarity(own[-1:], own[:-1]).max())
            score = (1 - alpha) * share - alpha * likeness
            if share > 0 and (best is None or score > best[0]):
                best = (score, word)
        assert best is not None
        text = torch.cat((text, torch.tensor([[best[1]]])), dim=1)
        log_probs.append(float(logits.log_softmax(-1)[0, best[1]]))
        if best[1] == params.end:
            break
    return Result(text[0, len(request.prompt) :].tolist(), log_probs, sum(log_probs))


def close(found: list[list[Result]], wanted: list[Result]) -> None:
    assert [[each.tokens for each in results] for results in found] == [[each.tokens] for each in wanted]
    for (mine,), other in zip(found, wanted, strict=True):
        assert mine.log_probs == pytest.approx(other.log_probs, abs=1e-9)
        assert mine.score == pytest.approx(other.score, abs=1e-9)


# Without a cache ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *(pytest.param(language, name, id=f"language-{name}") for name in LANGUAGE),
        *(pytest.param(translation, name, id=f"translation-{name}") for name in TRANSLATION),
    ],
)
def test_equals_a_search_without_a_memory(make: Callable[[str], tuple[Decoder, list[Request]]], name: str) -> None:
    model, requests = make(name)
    params = SamplingParams(end=END)
    found = run_requests(model, requests, params, ContrastiveSearch(k=3, alpha=0.5))
    close(found, [naive(model, request, params, 3, 0.5) for request in requests])


@pytest.mark.parametrize(("k", "alpha"), [(1, 1), (2, 0.3), (4, 0.6), (5, 1.0), (VOCAB, 0.8), (40, 0.8)])
def test_any_number_of_tokens_and_any_weight(k: int, alpha: int | float) -> None:
    model, requests = language("plain")
    found = run_requests(model, requests, SamplingParams(), ContrastiveSearch(k=k, alpha=alpha))
    close(found, [naive(model, request, SamplingParams(), min(k, VOCAB), alpha) for request in requests])
    greedy = run_requests(model, requests, SamplingParams(temperature=0), Sample())
    differs = [mine[0].tokens != other[0].tokens for mine, other in zip(found, greedy, strict=True)]
    assert any(differs) == (k > 1)


@pytest.mark.parametrize("end", [None, END])
def test_without_a_penalty_it_is_greedy(end: int | None) -> None:
    for make in (language, translation):
        model, requests = make("plain")
        found = run_requests(model, requests, SamplingParams(end=end), ContrastiveSearch(alpha=0))
        close(
            found, [each[0] for each in run_requests(model, requests, SamplingParams(temperature=0, end=end), Sample())]
        )


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_temperature_and_filters_come_first(temperature: float) -> None:
    model, requests = language("plain")
    params = SamplingParams(temperature=temperature, filters=(NoRepeatNgram(1), TopK(3)), end=END)
    found = run_requests(model, requests, params, ContrastiveSearch(k=6, alpha=0.7))
    close(found, [naive(model, request, params, 6, 0.7) for request in requests])


@pytest.mark.parametrize("batch", [1, 8, 12, 64])
def test_a_text_alone_or_among_others(batch: int) -> None:
    model, requests = translation("plain")
    together = run_requests(model, requests, SamplingParams(end=END, batch=batch), ContrastiveSearch())
    alone = [run_requests(model, [request], SamplingParams(end=END), ContrastiveSearch())[0][0] for request in requests]
    close(together, alone)


def test_a_window_is_asked_for_or_built_in() -> None:
    (plain, requests), (built, _) = language("plain"), language("window")
    found = run_requests(plain, requests, SamplingParams(end=END, window=3), ContrastiveSearch())
    close(found, [each[0] for each in run_requests(built, requests, SamplingParams(end=END), ContrastiveSearch())])
    assert found != run_requests(plain, requests, SamplingParams(end=END), ContrastiveSearch())


# Continuation ---------------------------------------------------------------------------------------------------------


def test_tokens_come_as_they_are_chosen_and_a_stop_ends_them() -> None:
    model, requests = language("plain")
    free = [each[0] for each in run_requests(model, requests, SamplingParams(), ContrastiveSearch())]
    asked: dict[int, list[int]] = {0: [], 1: [], 2: [], 3: []}

    def stop(number: int, token: int) -> bool:
        asked[number].append(token)
        return len(asked[number]) == 2 and number == 1

    drawn = list(ContrastiveSearch()(model, requests, SamplingParams(stop=stop)))
    assert [each.request for each in drawn[:8]] == sorted(range(4), key=lambda n: LENGTHS[n]) * 2
    for number, most in enumerate((7, 2, 4, 6)):
        own = [each for each in drawn if each.request == number]
        assert [each.token for each in own] == free[number].tokens[:most] == asked[number]
        assert [each.last for each in own] == [False] * (most - 1) + [True]


def test_candidates_share_their_context_and_finished_texts_cost_nothing() -> None:
    model, requests = translation("plain")
    rows: list[int] = []
    caches: list[Any] = []
    states = model.compute_states

    def watch(tokens: Tensor, **given: Any) -> Tensor:
        rows.append(len(tokens))
        caches.append(given["cache"])
        if len(rows) == 2:
            keys = [call.fixed["context"].keys for call in caches[0] if call.fixed]
            assert [len(each) for each in keys] == [4] * DEPTH
        return states(tokens, **given)

    model.compute_states = watch
    run_requests(model, requests, SamplingParams(), ContrastiveSearch(k=3))
    assert rows == [4, *[12] * 4, *[9] * 2, 6, *[3] * 2]


def test_is_left_as_it_was_when_closed_early() -> None:
    model, requests = language("plain")
    model.train()
    steps = ContrastiveSearch()(model, requests, SamplingParams())
    assert model.training
    next(steps)
    assert not model.training
    steps.close()
    assert model.training


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "method: ContrastiveSearch has k 0, which must be at least 1"),
        ({"alpha": -0.1}, "method: ContrastiveSearch has alpha -0.1, which must be from 0 to 1"),
        ({"alpha": 1.1}, "method: ContrastiveSearch has alpha 1.1, which must be from 0 to 1"),
    ],
)
def test_refuses_what_is_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastiveSearch(**options)


class WithoutStates:
    """Model that returns only logits."""

    vocab_size, max_length, recurrences, training = VOCAB, None, (), False

    def train(self, mode: bool = True) -> None: ...

    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> None: ...

    def __call__(self, tokens: Tensor, **given: Any) -> Tensor: ...


def test_refuses_a_model_that_gives_no_vectors() -> None:
    request = Request(prompt=torch.tensor([1]), max_new_tokens=3)
    message = "method ContrastiveSearch compares hidden states, and a WithoutStates returns none; use it with"
    with pytest.raises(ValueError, match=message):
        ContrastiveSearch()(WithoutStates(), [request], SamplingParams())
