"""Requests that come while others are decoded, each with its parameters, against each alone."""

import random
import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from catalogue import BUILDS, VOCAB, decoder, randomise
from lone_decoding import EACH, END, PROMPTS, make_requests, naive, way

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.scheduler import Scheduler
from lightning_xt.generation.engine import run_requests
from lightning_xt.generation.filters.banned import Banned
from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.forced import Forced
from lightning_xt.generation.filters.no_repeat_ngram import NoRepeatNgram
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.history import History
from lightning_xt.generation.models.contrastive import Contrastive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.segments.enhanced_recurrence import EnhancedRecurrence
from lightning_xt.nn.segments.memory_tokens import MemoryTokens
from lightning_xt.nn.segments.segment_recurrence import SegmentRecurrence

PARAMS = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=1.3, filters=[TopK(7)], end=END),
    SamplingParams(temperature=1.3, filters=[TopK(7)], end=END, alternatives=3),
    SamplingParams(filters=[NoRepeatNgram(2), Forced([7, 5])], stop=lambda number, token: token == 6),
]


@torch.inference_mode()
def serve(
    scheduler: Scheduler, requests: list[Request], params: list[SamplingParams], seed: int, cancelled: set[int]
) -> dict[int, list[GeneratedToken]]:
    """Submit requests between steps, cancel some after their first token, and return the tokens of each."""
    found: dict[int, list[GeneratedToken]] = {number: [] for number in range(len(requests))}
    chance, coming = random.Random(seed), list(enumerate(zip(requests, params, strict=True)))
    while coming or scheduler.busy:
        for _ in range(chance.randint(0, 2)):
            if coming:
                number, (request, own) = coming.pop(0)
                scheduler.submit(number, request, own)
                if number in cancelled and number % 2:
                    scheduler.cancel(number)
        for each in scheduler.advance():
            found[each.request].append(each)
            if each.request in cancelled:
                scheduler.cancel(each.request)
        assert scheduler.running <= scheduler.rows
    return found


def check(model: Decoder, requests: list[Request], rows: int, prefill_tokens: int | None, seed: int) -> None:
    params = [PARAMS[number % len(PARAMS)] for number in range(len(requests))]
    cancelled = {1, 4}
    for on_host in (True, False):
        with way(on_host):
            scheduler = Scheduler(model, rows=rows, tokens=64, prefill_tokens=prefill_tokens)
            found = serve(scheduler, requests, params, seed, cancelled)
        assert not scheduler.busy and scheduler.waiting == 0
        for number, (request, own) in enumerate(zip(requests, params, strict=True)):
            wanted = naive(model, number, request, own)
            tokens, log_probs = [each.token for each in found[number]], [each.log_prob for each in found[number]]
            ended = len(tokens) if number in cancelled else len(wanted.tokens)
            assert tokens == wanted.tokens[:ended]
            assert log_probs == pytest.approx(wanted.log_probs[:ended], abs=1e-9)
            assert number in cancelled or [each.last for each in found[number]] == [False] * (ended - 1) + [True]


@EACH
@pytest.mark.parametrize("prefill_tokens", [None, 4])
def test_requests_that_come_between_steps_are_as_if_alone(name: str, prefill_tokens: int | None) -> None:
    check(randomise(BUILDS[name]), make_requests(), rows=3, prefill_tokens=prefill_tokens, seed=len(name))


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_any_number_of_rows(rows: int) -> None:
    for seed in range(3):
        check(randomise(decoder), make_requests(), rows, prefill_tokens=6, seed=seed)


def test_a_cancelled_request_leaves_at_the_next_step() -> None:
    model = decoder()
    shapes: list[int] = []
    model.register_forward_pre_hook(lambda module, args: shapes.append(args[0].shape[0]))
    scheduler = Scheduler(model, rows=4, tokens=64)
    request = Request(prompt=torch.tensor([1, 2]), max_new_tokens=50)
    with torch.inference_mode():
        for number in range(3):
            scheduler.submit(number, replace(request, prompt=request.prompt + number), SamplingParams())
        scheduler.advance()
        scheduler.cancel(1)
        scheduler.cancel(17)
        assert {each.request for each in scheduler.advance()} == {0, 2}
        assert scheduler.running == 2 and shapes == [3, 2]
        scheduler.cancel(0)
        scheduler.cancel(2)
        assert scheduler.advance() == [] and not scheduler.busy
        assert shapes == [3, 2], "nobody needs a further step"


def test_a_long_prompt_is_read_in_pieces_between_the_steps_of_others() -> None:
    model = randomise(decoder)
    shapes: list[tuple[int, int]] = []
    scheduler = Scheduler(model, rows=4, tokens=128, prefill_tokens=8)
    long = Request(prompt=torch.randint(0, VOCAB, (30,)), max_new_tokens=3)
    with torch.inference_mode():
        scheduler.submit(0, Request(prompt=torch.tensor([1]), max_new_tokens=12), SamplingParams())
        scheduler.advance()
        model.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
        scheduler.submit(1, long, SamplingParams(temperature=0))
        found = [each for _ in range(8) for each in scheduler.advance()]
    assert shapes[:8] == [(1, 1), (1, 8), (1, 1), (1, 8), (1, 1), (1, 8), (1, 1), (1, 6)]
    tokens = [each.token for each in found if each.request == 1]
    assert tokens == naive(model, 1, long, SamplingParams(temperature=0)).tokens


@pytest.mark.parametrize(
    "inputs",
    [Inputs(visible_prefix=torch.tensor([20])), Inputs(types=torch.zeros(1, 20, dtype=torch.long))],
    ids=["visible_prefix", "types"],
)
def test_a_prompt_with_inputs_of_single_tokens_is_read_at_once(inputs: Inputs) -> None:
    model = randomise(BUILDS["embeddings=TypeEmbedding"] if inputs.types is not None else decoder)
    shapes: list[tuple[int, int]] = []
    model.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    request = Request(prompt=torch.randint(0, VOCAB, (20,)), max_new_tokens=2, inputs=inputs)
    scheduler = Scheduler(model, rows=2, tokens=64, prefill_tokens=8)
    with torch.inference_mode():
        scheduler.submit(0, request, SamplingParams(temperature=0))
        tokens = [each.token for _ in range(2) for each in scheduler.advance()]
    assert shapes[0] == (1, 20)
    assert tokens == naive(model, 0, request, SamplingParams(temperature=0)).tokens


def test_sequences_of_one_prompt_share_its_prefill() -> None:
    model = randomise(decoder)
    shapes: list[tuple[int, int]] = []
    request = Request(prompt=torch.randint(0, VOCAB, (9,)), max_new_tokens=5)
    several = [replace(request, seed=seed) for seed in range(3)]
    wanted = [naive(model, 0, each, SamplingParams()).tokens for each in several]
    model.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
    found = serve(Scheduler(model, rows=4, tokens=64), several, [SamplingParams()] * 3, 2, set())
    assert [[each.token for each in tokens] for tokens in found.values()] == wanted
    scheduler = Scheduler(model, rows=4, tokens=64)
    shapes.clear()
    with torch.inference_mode():
        for number, each in enumerate(several):
            scheduler.submit(number, each, SamplingParams())
        scheduler.advance()
        scheduler.advance()
    assert shapes == [(1, 9), (3, 1)]


class Only(Filter):
    """A filter of the caller, whose options its `repr` does not show."""

    def __init__(self, token: int) -> None:
        self._token = token

    def __call__(self, logits: Logits, history: History) -> Logits:
        return torch.full_like(logits, float("-inf")).index_fill(1, torch.tensor([self._token]), 0.0)


def test_requests_keep_their_own_custom_filters() -> None:
    scheduler = Scheduler(randomise(decoder), rows=2, tokens=9)
    requests = [Request(prompt=torch.arange(3), max_new_tokens=2)] * 2
    params = [SamplingParams(filters=[Only(token)]) for token in (3, 7)]
    found = serve(scheduler, requests, params, seed=0, cancelled=set())
    assert [[each.token for each in found[number]] for number in (0, 1)] == [[3, 3], [7, 7]]


def test_alternatives_are_the_most_likely_tokens() -> None:
    model, params = randomise(decoder), SamplingParams(temperature=1.3, filters=[TopK(2)], alternatives=4)
    (request,) = make_requests(1)
    request = replace(request, inputs=None)
    found = serve(Scheduler(model, rows=1, tokens=64), [request], [params], 0, set())[0]
    tokens = torch.cat((request.prompt, torch.tensor([each.token for each in found])))
    with torch.no_grad():
        log_probs = model(tokens[None])[0].log_softmax(dim=-1)
    for at, each in enumerate(found, len(request.prompt) - 1):
        values, ids = log_probs[at].topk(4)
        assert [token for token, _ in each.alternatives] == ids.tolist()
        assert [value for _, value in each.alternatives] == pytest.approx(values.tolist(), abs=1e-9)


@pytest.mark.parametrize("on_host", [True, False])
def test_an_error_ends_only_its_request(on_host: bool) -> None:
    """Scores that are not finite end a request, and leave nothing behind in the memory of its row."""
    model, requests = randomise(decoder), [replace(each, inputs=None) for each in make_requests()]
    requests = [replace(each, max_new_tokens=6) for each in requests]
    weight, bad = model.token_embedding.weight, VOCAB - 1
    params = [SamplingParams(temperature=0, filters=[Banned([bad])]) for _ in requests]
    requests = [replace(each, prompt=each.prompt.clamp(max=bad - 1)) for each in requests]
    wanted = [naive(model, number, each, params[0]).tokens for number, each in enumerate(requests)]
    with torch.no_grad():
        weight[bad] = float("nan")
    poisoned = replace(requests[0], prompt=torch.tensor([1, bad, 2]))
    errors: dict[int, Exception] = {}
    with way(on_host):
        scheduler = Scheduler(model, rows=2, tokens=64, on_error=errors.__setitem__)
        given = [each for request in requests for each in (poisoned, request)]
        found = serve(scheduler, given, [params[0]] * len(given), 1, set())
    assert sorted(errors) == list(range(0, len(given), 2))
    assert all("are not finite" in str(error) for error in errors.values())
    assert [[each.token for each in found[2 * n + 1]] for n in range(len(requests))] == wanted


def test_without_a_callback_an_error_is_raised() -> None:
    model = randomise(decoder)
    with torch.no_grad():
        model.token_embedding.weight[1] = float("nan")
    scheduler = Scheduler(model, rows=2, tokens=64)
    scheduler.submit(0, Request(prompt=torch.tensor([1]), max_new_tokens=2), SamplingParams())
    with torch.inference_mode(), pytest.raises(ValueError, match="scores of the next token are not finite"):
        scheduler.advance()


def test_refuses_what_never_fits_a_row() -> None:
    scheduler = Scheduler(decoder(), rows=2, tokens=16)
    message = (
        "a prompt of 9 tokens and 8 more make 17, but a row has room for 16; shorten the prompt or ask for at most 7 "
        "tokens"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        scheduler.submit(0, Request(prompt=torch.zeros(9, dtype=torch.long), max_new_tokens=8), SamplingParams())
    assert not scheduler.busy


def test_memory_is_reused_while_requests_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first requests the buffers of the cache stay where they are."""
    model = randomise(decoder)
    scheduler = Scheduler(model, rows=3, tokens=64)
    places: set[Any] = set()
    with torch.inference_mode():
        for number in range(3 * len(PROMPTS)):
            request = Request(prompt=torch.randint(0, VOCAB, (PROMPTS[number % 9],)), max_new_tokens=2 + number % 5)
            scheduler.submit(number, request, SamplingParams())
            scheduler.advance()
            if number > 6:
                buffers = scheduler.batch.cache[0]._buffers
                places |= {(name, each.data_ptr()) for name, each in buffers.items()}
        while scheduler.busy:
            scheduler.advance()
        scheduler.submit(99, Request(prompt=torch.tensor([1]), max_new_tokens=2), SamplingParams())
        scheduler.advance()
        buffers = scheduler.batch.cache[0]._buffers
        assert {(name, each.data_ptr()) for name, each in buffers.items()} == places


@pytest.mark.parametrize("name", ["plain", "window", "attention=Hybrid", "given_context-rotary-kv_heads"])
def test_static_caches_give_the_same(name: str) -> None:
    model = randomise(BUILDS[name])
    model.new_cache = partial(model.new_cache, static=True)
    check(model, make_requests(), rows=3, prefill_tokens=4, seed=1)


@pytest.mark.parametrize("segments", [SegmentRecurrence, MemoryTokens, EnhancedRecurrence])
def test_rows_of_several_segments(segments: Any) -> None:
    model = randomise(lambda: decoder(segments=partial(segments, length=5)))
    check(model, [replace(each, inputs=None) for each in make_requests()], rows=3, prefill_tokens=4, seed=2)


def test_several_models_that_read_the_same_tokens() -> None:
    """The caches of both change together."""
    model = Contrastive(randomise(decoder), [randomise(decoder)])
    requests = [replace(each, inputs=None) for each in make_requests()]
    found = serve(Scheduler(model, rows=3, tokens=64, prefill_tokens=4), requests, [PARAMS[1]] * 9, 3, set())
    for number, request in enumerate(requests):
        ((alone,),) = run_requests(model, [request], PARAMS[1])
        assert [each.token for each in found[number]] == alone.tokens


@pytest.mark.parametrize(("comes", "steps"), [(False, 5), (True, 1)])
def test_elsewhere_a_request_that_comes_waits_for_one_step(comes: bool, steps: int) -> None:
    """Without it several steps run between reads of the device."""
    model = decoder()
    shapes = []
    with way(False), torch.inference_mode():
        scheduler = Scheduler(model, rows=2, tokens=64, sync_every=5)
        scheduler.submit(0, Request(prompt=torch.tensor([1]), max_new_tokens=30), SamplingParams())
        scheduler.advance()
        model.register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0].shape)))
        if comes:
            scheduler.submit(1, Request(prompt=torch.tensor([1, 2]), max_new_tokens=30), SamplingParams())
        scheduler.advance()
    assert shapes == [(1, 1)] * steps + [(1, 2)] * comes
