"""Continuous batching against each text alone, its prefix recomputed for every token."""

import copy
import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from catalogue import (
    BUILDS,
    CONDITION,
    DIM,
    VOCAB,
    Build,
    attention,
    attention_layers,
    decoder,
    randomise,
)
from encoder_catalogue import PAIRS, SOURCES
from lone_decoding import EACH, END, LENGTHS, PROMPTS, make_requests, naive, way
from sampled_laws import sample

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.running_batch import RunningBatch
from lightning_xt.generation.batching.scheduler import SYNC_EVERY
from lightning_xt.generation.engine import generate, run_requests
from lightning_xt.generation.filters.forced import Forced
from lightning_xt.generation.filters.no_repeat_ngram import NoRepeatNgram
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.contrastive_search import ContrastiveSearch
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.requests import Request, Result, SamplingParams
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.forgetting import Forgetting


def agree(model: Decoder, requests: list[Request], params: SamplingParams) -> list[Result]:
    """Assert that each request is answered as if there were no other, on both kinds of devices."""
    wanted = [naive(model, number, request, params) for number, request in enumerate(requests)]
    for on_host in (True, False):
        with way(on_host):
            same([result for (result,) in run_requests(model, requests, params)], wanted)
    return wanted


def same(found: list[Result], wanted: list[Result]) -> None:
    assert [result.tokens for result in found] == [result.tokens for result in wanted]
    for mine, other in zip(found, wanted, strict=True):
        assert mine.log_probs == pytest.approx(other.log_probs, abs=1e-9)
        assert mine.score == pytest.approx(other.score, abs=1e-9)


@EACH
@pytest.mark.parametrize("temperature", [0, 1.3])
def test_each_text_is_as_if_alone(name: str, temperature: float) -> None:
    """Nine texts in three rows: prompts are prefilled into released rows, and rows are compacted."""
    model, requests = randomise(BUILDS[name]), make_requests()
    params = SamplingParams(temperature=temperature, filters=[TopK(7), NoRepeatNgram(2), Forced([7, 5])], batch=3)
    end = run_requests(model, [requests[7]], params)[0][0].tokens[2]
    results = agree(model, requests, replace(params, end=end))
    assert len(results[7].tokens) <= 3 and {result.tokens[-1] == end for result in results} == {True, False}


@sample("build", BUILDS)
def test_greedy_with_a_memory_equals_greedy_without(build: Build) -> None:
    results = agree(randomise(build), make_requests(3), SamplingParams(temperature=0, batch=2))
    assert [len(result.tokens) for result in results] == LENGTHS[:3]


@pytest.mark.parametrize("name", ["plain", "window", "projection=Latent", "shift=TokenShift", "memory"])
def test_sources_of_different_lengths_are_translated_together(name: str) -> None:
    model = randomise(PAIRS[name])
    requests = []
    for row in range(7):
        src, condition = torch.randint(0, SOURCES, (1, 1 + row)), torch.randn(1, CONDITION).double()
        mask = torch.ones_like(src, dtype=torch.bool)
        mask[0, 3:5] = False
        with torch.no_grad():
            known = model.encode(src, mask if row % 2 else None, inputs=Inputs(condition=condition))
        prompt = torch.randint(0, VOCAB, (PROMPTS[row],))
        requests.append(Request(prompt=prompt, max_new_tokens=LENGTHS[row], seed=row, inputs=known))
    agree(model.decoder, requests, SamplingParams(end=END, batch=3))


def test_soft_prefixes_of_different_lengths() -> None:
    model, requests = randomise(decoder), make_requests()
    for row, soft in enumerate([2, None, 3, 2, None, 5, 2, 3, 1]):
        prefix = None if soft is None else torch.randn(1, soft, DIM).double()
        requests[row] = replace(requests[row], inputs=Inputs(prefix=prefix))
    agree(model, requests, SamplingParams(end=END, batch=4))


def test_prompts_whose_tokens_see_each_other() -> None:
    requests = make_requests()
    for row, request in enumerate(requests):
        seen = Inputs(visible_prefix=torch.tensor([len(request.prompt) - row % 2]))
        requests[row] = replace(request, inputs=seen)
    agree(randomise(decoder), requests, SamplingParams(end=END, batch=4))


def test_a_callback_ends_its_text() -> None:
    heard: dict[int, list[int]] = {}

    def stop(number: int, token: int) -> bool:
        heard.setdefault(number, []).append(token)
        return token % 5 == number % 5

    model, requests = randomise(decoder), make_requests()
    params = SamplingParams(temperature=1.5, end=END, batch=3, stop=stop)
    results = [result.tokens for (result,) in run_requests(model, requests, params)]
    assert heard == dict(enumerate(results)), "called for each token of a text, in order, and not after its end"
    agree(model, requests, replace(params, stop=lambda number, token: token % 5 == number % 5))
    assert any(tokens[-1] != END and len(tokens) < n for tokens, n in zip(results, LENGTHS, strict=True))


def test_any_number_of_places() -> None:
    model, requests = randomise(decoder), make_requests()
    wanted = agree(model, requests, SamplingParams(end=END, batch=64))
    for batch in (1, 2, 8, 9):
        for on_host in (True, False):
            with way(on_host):
                same(
                    [result for (result,) in run_requests(model, requests, SamplingParams(end=END, batch=batch))],
                    wanted,
                )


def test_prompts_are_read_in_pieces_where_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_xt.generation.batching.scheduler.MAX_PREFILL_TOKENS", 8)
    model, read = randomise(decoder), []
    model.register_forward_pre_hook(lambda module, args: read.append(tuple(args[0].shape)))
    agree(model, make_requests(), SamplingParams(batch=64))
    assert all(rows * n <= 8 or rows == 1 for rows, n in read if n > 1)
    assert max(rows for rows, n in read if n > 1) > 1


@pytest.mark.parametrize(
    "name", ["plain", "window", "given_context-rotary-kv_heads", "attention=Hybrid", "attention=Mamba2"]
)
def test_static_memories_give_the_same(name: str) -> None:
    model = randomise(BUILDS[name])
    model.new_cache = partial(model.new_cache, static=True)
    agree(model, make_requests(), SamplingParams(end=END, batch=3))


# Work -----------------------------------------------------------------------------------------------------------------


def count_forwards(model: Decoder) -> list[tuple[int, int]]:
    """Record rows and tokens of each later forward."""
    shapes: list[tuple[int, int]] = []
    model.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    return shapes


@pytest.mark.parametrize("batch", [2, 3, 64])
def test_texts_that_ended_cost_nothing(batch: int) -> None:
    model, requests = randomise(decoder), make_requests()
    # One token is a prompt too, with another number of tokens than steps have.
    requests = [replace(each, prompt=each.prompt.repeat(2), inputs=None) for each in requests]
    shapes = count_forwards(model)
    results = run_requests(model, requests, SamplingParams(temperature=1.5, end=END, batch=batch))
    drawn = [len(result.tokens) for (result,) in results]
    assert sum(rows for rows, n in shapes if n == 1) == sum(drawn) - len(drawn)
    assert sum(rows for rows, n in shapes if n > 1) == len(requests)
    assert max(rows for rows, _ in shapes) <= batch


def test_prompts_of_similar_lengths_are_read_together() -> None:
    model = randomise(decoder)
    shapes = count_forwards(model)
    requests = [Request(prompt=torch.zeros(n, dtype=torch.long), max_new_tokens=1) for n in (100, 2, 90, 3, 95, 50, 2)]
    run_requests(model, requests, SamplingParams())
    assert sorted(shapes) == [(1, 50), (3, 3), (3, 100)]


@pytest.mark.parametrize(("on_host", "asks"), [(True, 1 + 2 * SYNC_EVERY + 3), (False, 1 + 2 + 1)])
def test_a_device_is_asked_now_and_then(on_host: bool, asks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, collect = [], RunningBatch.collect
    monkeypatch.setattr(RunningBatch, "collect", lambda *given: heard.append(collect(*given)) or heard[-1])
    request = Request(prompt=torch.tensor([1]), max_new_tokens=1 + 2 * SYNC_EVERY + 3)
    with way(on_host):
        run_requests(decoder(), [request] * 2, SamplingParams())
    assert len(heard) == asks


def test_elsewhere_rows_are_let_go_once_half_of_them_ended() -> None:
    model = decoder()
    shapes = count_forwards(model)
    requests = [Request(prompt=torch.tensor([1, 2]), max_new_tokens=n) for n in (2, 4, 4, 6, 8)]
    with way(False):
        run_requests(model, requests, SamplingParams())
    assert [rows for rows, _ in shapes[:8]] == [5, 5, 5, 5, 2, 2, 1, 1]


def test_elsewhere_a_long_text_that_ended_takes_no_room_from_the_others() -> None:
    """A row that ended stays in the batch from its start: the others draw more tokens than it has room for."""
    requests = [
        Request(prompt=torch.randint(0, VOCAB, (n,)), max_new_tokens=40 if n == 1 else 2) for n in (1, 1, 1, 30)
    ]
    model = randomise(decoder)
    shapes = count_forwards(model)
    with way(False):
        found = [result for (result,) in run_requests(model, requests, SamplingParams())]
    assert [rows for rows, n in shapes if n == 1] == [3] + [4] * 39
    same(found, [run_requests(model, [request], SamplingParams())[0][0] for request in requests])


def test_elsewhere_a_text_that_ended_has_drawn_nothing_once_it_is_forgotten() -> None:
    """Filters that count generated tokens see the row of a text that ended too."""
    requests = [Request(prompt=torch.randint(0, VOCAB, (10,)), max_new_tokens=n) for n in (2, 6, 6, 6)]
    results = agree(randomise(decoder), requests, SamplingParams(filters=[Forced([1, 2])]))
    assert [result.tokens[:2] for result in results] == [[1, 2]] * 4


# Windows --------------------------------------------------------------------------------------------------------------

SLIDING = {
    "rotary": {},
    "alibi": {"position": ALiBi},
    "forgetting": {"position": Forgetting},
    "no_position": {"position": None},
    "window": {"window": 3},
    "memory": {"memory": 3},
}


@pytest.mark.parametrize("options", SLIDING.values(), ids=SLIDING)
def test_a_window_slides_past_the_trained_length(options: dict[str, Any]) -> None:
    """Three windows of tokens follow prompts shorter and longer than one, in a cache with little slack."""
    model = randomise(lambda: decoder(attention=attention(**options)))
    model.new_cache = partial(model.new_cache, slack=2)
    narrow, window = copy.deepcopy(model), 5
    del narrow.new_cache
    for layer in attention_layers(narrow):
        layer.window = min(layer.window or window, window)
    prompts = [torch.randint(0, VOCAB, (n,)) for n in (2, 11, 5)]
    requests = [Request(prompt=prompt, max_new_tokens=3 * window) for prompt in prompts]
    params = SamplingParams(temperature=0, window=window, batch=2)
    wanted = [naive(narrow, number, request, params) for number, request in enumerate(requests)]
    for on_host in (True, False):
        with way(on_host):
            same([result for (result,) in run_requests(model, requests, params)], wanted)
    wide = [result.tokens for (result,) in run_requests(model, requests, replace(params, window=None))]
    assert (wide == [result.tokens for result in wanted]) == (options == SLIDING["window"])


def test_a_window_cannot_slide_over_learned_positions() -> None:
    model = decoder(embeddings=[partial(LearnedPositions, max_length=8)])
    message = (
        "a prompt of 6 tokens and 3 more make 9, but the model's positions reach only 8 (max_length); shorten the "
        "prompt or ask for at most 2 tokens, because a window cannot slide over learned positions"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        generate(model, torch.randint(0, VOCAB, (1, 6)), 3, window=4)


# What is left behind, and refusals ------------------------------------------------------------------------------------


def test_nothing_asked_is_nothing_answered() -> None:
    model = decoder().train()
    assert run_requests(model, [], SamplingParams()) == []
    assert model.training


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_when_closed_early(training: bool) -> None:
    model = decoder(dropout=0.5).train(training)
    drawn = Sample()(model, make_requests(), SamplingParams(batch=2))
    next(drawn)
    assert not model.training
    drawn.close()
    assert model.training is training and model.stack.training is training


def test_inputs_are_left_as_they_were() -> None:
    model, requests = randomise(BUILDS["given_context"]), make_requests()
    before = copy.deepcopy([vars(request.inputs) for request in requests])
    run_requests(model, requests, SamplingParams(end=END, batch=3))
    for request, was in zip(requests, before, strict=True):
        assert all(
            was[name] is value is None or torch.equal(value, was[name]) for name, value in vars(request.inputs).items()
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "generation has batch 0, which must be at least 1"),
        ({"window": 0}, "generation has window 0, which must be at least 1"),
        ({"temperature": -1.0}, "generation has temperature -1.0, which must be at least 0"),
    ],
    ids=str,
)
def test_refuses_choices_before_anything_is_drawn(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Sample()(decoder(), make_requests(1), SamplingParams(**options))


@pytest.mark.parametrize("method", [Sample(), PromptLookup(), BeamSearch(), ContrastiveSearch()], ids=type)
def test_refuses_rows_with_different_inputs_before_anything_is_read(method: Method) -> None:
    model, (first, second) = decoder(), [replace(each, inputs=None) for each in make_requests(2)]
    requests = [first, replace(second, inputs=Inputs(types=torch.zeros(1, len(second.prompt), dtype=torch.long)))]
    message = (
        "rows that are decoded together need the same inputs, but one has none and another types; give all of them "
        "the same, or set batch to 1"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        method(model, requests, SamplingParams(batch=2))
    apart = run_requests(model, requests, SamplingParams(temperature=0, batch=1), method)
    assert apart == [run_requests(model, [each], SamplingParams(temperature=0), method)[0] for each in requests]
