"""Speculation: the text of plain decoding, token for token, in fewer forwards."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from catalogue import BUILDS, DIM, VOCAB, attention, carries_state, decoder, example, randomise
from encoder_catalogue import pair, source
from sampled_laws import sample
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.row_inputs import select_row
from lightning_xt.generation.engine import run_requests
from lightning_xt.generation.filters.min_length import MinLength
from lightning_xt.generation.filters.no_repeat_ngram import NoRepeatNgram
from lightning_xt.generation.filters.repetition_penalty import RepetitionPenalty
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.history import History
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.methods.draft import Draft
from lightning_xt.generation.methods.prompt_lookup import PromptLookup, estimate_time
from lightning_xt.generation.noise import make_seeds, sample_tokens
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions

GREEDY = SamplingParams(temperature=0)
SAMPLED = SamplingParams(temperature=0.7, filters=[RepetitionPenalty(1.3), TopK(5), MinLength(4)], end=3)


class Ring:
    """Model whose next token is the last plus one, modulo the vocabulary; it counts the tokens of its forwards."""

    vocab_size, max_length, recurrences, training = 5, None, (), False

    def __init__(self) -> None:
        self.widths: list[int] = []

    def train(self, mode: bool = True) -> "Ring":
        return self

    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> object:
        return decoder().new_cache(batch, capacity)

    def __call__(
        self, tokens: Tensor, *, lengths: Tensor | None = None, last_only: bool = False, **_: object
    ) -> Tensor:
        self.widths.append(tokens.shape[1])
        if last_only:
            tokens = tokens[:, -1:] if lengths is None else tokens.gather(1, lengths[:, None] - 1)
        return 9.0 * torch.nn.functional.one_hot((tokens + 1) % 5, 5).float()


def small() -> Decoder:
    """Build a draft model that is unrelated to the others."""
    torch.manual_seed(17)
    return decoder(depth=1).double().eval()


def requests(lengths: dict[int, int], inputs: Inputs | None = None) -> list[Request]:
    """Return requests with prompts of some lengths, and their numbers of tokens."""
    generator = torch.Generator().manual_seed(23)
    return [
        Request(
            prompt=torch.randint(0, VOCAB, (n,), generator=generator),
            max_new_tokens=length,
            seed=100 + row,
            inputs=select_row(inputs, row, n),
        )
        for row, (n, length) in enumerate(lengths.items())
    ]


def same(model: Autoregressive, asked: list[Request], params: SamplingParams, method: Method) -> list[list[int]]:
    """Return the texts of a method, and assert that plain decoding gives the same."""
    plain, ours = (run_requests(model, asked, params, each) for each in (None, method))
    for expected, got in zip(plain, ours, strict=True):
        assert [result.tokens for result in got] == [result.tokens for result in expected]
        assert got[0].log_probs == pytest.approx(expected[0].log_probs, abs=1e-9)
        assert got[0].score == pytest.approx(sum(got[0].log_probs))
    return [result.tokens for (result,) in ours]


# The same text -------------------------------------------------------------------------------------------------------


def alter(build: Callable[[], Decoder]) -> Decoder:
    """Build a model that often, but not always, draws the tokens of a recipe's model."""
    model = randomise(build)
    with torch.no_grad():
        model.token_embedding.weight.add_(0.2 * torch.randn_like(model.token_embedding.weight))
    return model


@sample("build", BUILDS)
def test_every_variant_draws_what_it_draws_without(build: Callable[[], Decoder]) -> None:
    model, asked = randomise(build), requests({4: 7, 1: 11, 6: 3}, example(3, 6)[1])
    if carries_state(model):
        model.token_embedding.register_forward_hook(lambda *_: pytest.fail("a token was run"))
        for method in (PromptLookup(), Draft(model)):
            with pytest.raises(
                ValueError,
                match=rf"^method {type(method).__name__} removes rejected drafts from a cache, but .*\w+ is a running "
                r"state without a past; choose a method without drafts$",
            ):
                run_requests(model, asked, GREEDY, method)
        return
    same(model, asked, GREEDY, PromptLookup())
    same(model, asked, SAMPLED, Draft(alter(build)))


@pytest.mark.parametrize("name", [name for name in BUILDS if "window" in name])
def test_windows_that_have_come_round_give_tokens_back(name: str) -> None:
    model, asked = randomise(BUILDS[name]), requests({4: 18, 11: 13}, example(2, 11)[1])
    same(model, asked, GREEDY, PromptLookup(tokens=3))
    same(model, asked, SAMPLED, Draft(alter(BUILDS[name]), ahead=2))


@pytest.mark.parametrize(
    "params", [SamplingParams(temperature=0, window=4), SamplingParams(window=4)], ids=["greedy", "sampled"]
)
def test_a_window_for_the_call_is_the_draft_s_too(params: SamplingParams) -> None:
    model, asked = randomise(decoder), requests({4: 19, 2: 25})
    same(model, asked, params, PromptLookup())
    method = Draft(model)
    same(model, asked, params, method)
    assert method.accepted == method.proposed > 0


def decode_by_hand(model: Decoder, request: Request, params: SamplingParams) -> list[int]:
    """Decode one token after the other, recomputing the whole prefix for each."""
    text = request.prompt[None]
    prompts, seeds = torch.tensor([text.shape[1]]), make_seeds([request.seed], text.device)
    for step in range(request.max_new_tokens):
        with torch.no_grad():
            logits = model(text)[:, -1]
        logits = logits / (params.temperature or 1)
        for change in params.filters:
            logits = change(logits, History(text, prompts, prompts + step, params.end))
        token = sample_tokens(logits, params.temperature, seeds, torch.tensor([step]))
        text = torch.cat((text, token[:, None]), dim=1)
        if token == params.end:
            break
    return text[0, len(request.prompt) :].tolist()


@pytest.mark.parametrize("temperature", [0, 0.4, 1.0, 2.0])
@pytest.mark.parametrize(
    "method",
    [PromptLookup(), PromptLookup(ngram=1, tokens=2), Draft(small(), ahead=3)],
    ids=["lookup", "short", "draft"],
)
def test_each_token_is_the_one_drawn_by_hand(temperature: float, method: Method) -> None:
    model, asked = randomise(decoder), requests({5: 17, 2: 11, 1: 19})
    params = SamplingParams(temperature=temperature, filters=[NoRepeatNgram(3), MinLength(6), TopK(4)], end=7)
    assert same(model, asked, params, method) == [decode_by_hand(model, each, params) for each in asked]


@pytest.mark.parametrize("method", [PromptLookup(), Draft(small())], ids=["lookup", "draft"])
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_rows_end_separately_and_the_others_continue(method: Method, batch: int) -> None:
    model, asked = randomise(decoder), requests({5: 9, 2: 1, 7: 8, 1: 7})
    widths = set()
    for end in (1, 9):
        texts = same(model, asked, SamplingParams(temperature=1.1, end=end, batch=batch), method)
        widths |= {len(text) for text in texts}
        assert all(end not in text[:-1] for text in texts)
    assert len(widths) > 2, "or little would be shown"


def test_a_stop_is_asked_of_each_token_in_order() -> None:
    model, asked = randomise(decoder), requests({5: 20, 2: 20})
    heard: list[tuple[int, int]] = []

    def stop(number: int, token: int) -> bool:
        heard.append((number, token))
        return len([each for each in heard if each[0] == number]) == 7 + number

    params = SamplingParams(temperature=0, stop=stop)
    texts = [result.tokens for (result,) in run_requests(model, asked, params, PromptLookup())]
    assert [len(text) for text in texts] == [7, 8]
    assert [[token for number, token in heard if number == row] for row in (0, 1)] == texts
    free = [result.tokens for (result,) in run_requests(model, asked, GREEDY)]
    assert texts == [free[0][:7], free[1][:8]]


def test_tokens_come_in_order_and_the_last_is_marked() -> None:
    asked = requests({5: 20, 2: 9})
    drawn = list(PromptLookup()(randomise(decoder), asked, GREEDY))
    for row, request in enumerate(asked):
        mine = [each for each in drawn if each.request == row]
        assert [each.last for each in mine] == [False] * (request.max_new_tokens - 1) + [True]
        assert {each.sequence for each in mine} == {0}


@torch.no_grad()
def test_an_encoder_decoder_writes_the_same_targets() -> None:
    model, (src, mask) = randomise(pair), source(3, 7)
    encoded = [model.encode(src[[row], :n], mask[[row], :n]) for row, n in enumerate((7, 5, 3))]
    asked = [
        Request(prompt=torch.tensor([1, *range(row)]), max_new_tokens=9, seed=row, inputs=encoded[row])
        for row in range(3)
    ]
    for params in (GREEDY, SAMPLED):
        texts = same(model.decoder, asked, params, PromptLookup())
        assert same(model.decoder, asked, params, Draft(model.decoder)) == texts
        assert len({tuple(text) for text in texts}) == 3


@torch.no_grad()
def test_soft_prefixes_of_several_lengths() -> None:
    model, text = randomise(decoder), torch.tensor([4, 1, 6, 2, 4])
    soft = model.token_embedding(text)[None]
    inputs = [None, Inputs(prefix=soft[:, :2]), Inputs(prefix=soft[:, :4]), Inputs(prefix=soft[:, :2])]
    asked = [Request(prompt=text[:4], max_new_tokens=12, seed=5, inputs=each) for each in inputs]
    for method in (PromptLookup(), Draft(model)):
        texts = same(model, asked, GREEDY, method)
        assert texts[1] == texts[3]


def test_a_text_may_fill_all_positions() -> None:
    model = randomise(partial(decoder, embeddings=[partial(LearnedPositions, max_length=16)]))
    for method in (PromptLookup(), Draft(model), Draft(model, ahead=11)):
        same(model, requests({6: 10, 1: 15, 9: 2}), GREEDY, method)


def test_nothing_asked_is_nothing_drawn() -> None:
    assert run_requests(decoder(), [], GREEDY, PromptLookup()) == []


# Fewer forwards ------------------------------------------------------------------------------------------------------


def test_a_text_that_goes_round_is_read_in_strides() -> None:
    model, method = Ring(), PromptLookup(ngram=3, tokens=8)
    asked = [Request(prompt=torch.tensor([0, 1, 2, 3, 4, 0, 1]), max_new_tokens=21)]
    ((result,),) = run_requests(model, asked, GREEDY, method)
    assert result.tokens == [(2 + step) % 5 for step in range(21)]
    # One from the prompt, then nine at a time: eight drafted and the one after them. Of the last two, one is drafted.
    assert model.widths == [7, 9, 9, 2]
    assert (method.proposed, method.accepted) == (8 + 8 + 1, 8 + 8 + 1)


def test_without_repetition_nothing_is_drafted() -> None:
    model, method = Ring(), PromptLookup()
    run_requests(model, [Request(prompt=torch.tensor([0]), max_new_tokens=4)], GREEDY, method)
    assert model.widths == [1, 1, 1, 1]
    assert (method.proposed, method.accepted) == (0, 0)


class Dice(Ring):
    """Model whose tokens are equally likely, so that n-grams repeat by chance."""

    def __call__(self, tokens: Tensor, **given: Any) -> Tensor:
        return torch.zeros_like(super().__call__(tokens, **given))


def test_a_text_that_repeats_by_chance_costs_hardly_more_than_plain_steps() -> None:
    model, method = Dice(), PromptLookup(ngram=2)
    asked = [Request(prompt=torch.tensor([0]), max_new_tokens=1000, seed=3)]
    run_requests(model, asked, SamplingParams(), method)
    assert 0 < method.accepted < method.proposed < 300
    assert sum(estimate_time(1, width) for width in model.widths) < 1.05 * 1000


def test_rows_that_repeat_draft_together_and_others_are_padded() -> None:
    model, method = Ring(), PromptLookup(tokens=4)
    prompts = [torch.tensor([0, 1, 2, 3, 4, 0, 1, 2, 3]), torch.tensor([3])]
    asked = [Request(prompt=each, max_new_tokens=3) for each in prompts]
    first, second = (result.tokens for (result,) in run_requests(model, asked, GREEDY, method))
    assert (first, second) == ([4, 0, 1], [4, 0, 1])
    # The first row drafts one token of its two, and in the second nothing has occurred twice.
    assert model.widths == [9, 2, 1] and (method.proposed, method.accepted) == (1, 1)


@pytest.mark.parametrize("params", [GREEDY, SamplingParams(), SAMPLED], ids=["greedy", "drawn", "filtered"])
def test_every_token_of_a_draft_by_the_model_is_accepted(params: SamplingParams) -> None:
    model, widths = randomise(decoder), []
    method = Draft(randomise(decoder), ahead=4)
    (text,) = same(model, requests({5: 21}), params, method)
    model.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[1]))
    run_requests(model, requests({5: 21}), params, method)
    assert len(widths) == 1 + math.ceil((len(text) - 1) / 5)
    if params.end is None:
        assert method.accepted == method.proposed == 16


def test_every_draft_is_accepted_in_rows_of_different_lengths_too() -> None:
    model, method = randomise(decoder), Draft(randomise(decoder))
    same(model, requests({5: 21, 3: 7, 1: 13}), SamplingParams(), method)
    assert method.accepted == method.proposed > 20


def test_few_tokens_of_a_random_draft_are_accepted() -> None:
    method, model = Draft(small()), randomise(decoder)
    same(model, requests({5: 40}), GREEDY, method)
    assert 0 <= method.accepted < method.proposed / 2


def test_a_similar_draft_is_accepted_more_often_with_the_same_noise() -> None:
    model, draft = randomise(decoder), randomise(decoder)
    with torch.no_grad():
        weight = draft.head.to_logits.weight
        weight.add_(0.02 * torch.randn_like(weight))
    method = Draft(draft)
    same(model, requests({5: 40}), SamplingParams(temperature=3.0), method)
    # At so high a temperature two independent draws would agree one time in ten.
    assert method.accepted > 0.7 * method.proposed


# The same distribution -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["lookup", "draft"])
def test_draws_follow_the_distribution(source: str) -> None:
    size, length, draws = 3, 3, 3000
    model = randomise(lambda: Decoder(size, dim=8, depth=1, attention=attention()))
    other = randomise(lambda: Decoder(size, dim=7, depth=1, attention=attention()))
    method = PromptLookup(ngram=1) if source == "lookup" else Draft(other)
    prompt = torch.tensor([0, 1, 2, 0])
    asked = [Request(prompt=prompt, max_new_tokens=length, seed=seed) for seed in range(draws)]
    drawn = run_requests(model, asked, SamplingParams(batch=1000), method)
    assert 0 < method.accepted < method.proposed
    words = torch.cartesian_prod(*[torch.arange(size)] * length)
    text = torch.cat((prompt.expand(len(words), -1), words), dim=1)
    with torch.no_grad():
        log_probs = model(text)[:, len(prompt) - 1 : -1].log_softmax(-1).gather(-1, words[..., None]).sum((1, 2))
    counts = torch.zeros(size, size, size)
    for (result,) in drawn:
        counts[tuple(result.tokens)] += 1
    expected = draws * log_probs.exp()
    chi_squared = float(((counts.flatten() - expected) ** 2 / expected).sum())
    # With 26 degrees of freedom a right sampler exceeds 54.1 once in a thousand seeds; these seeds are fixed.
    assert chi_squared < 54.1


# What is left behind -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "other"), [(True, True), (True, False), (False, True)])
def test_the_modes_of_model_and_draft_are_restored(mode: bool, other: bool) -> None:
    model, draft = decoder(dropout=0.5).train(mode), decoder(dropout=0.5).train(other)
    method, asked = Draft(draft), requests({3: 9})
    assert run_requests(model, asked, GREEDY, method) == run_requests(model, asked, GREEDY)
    assert (model.training, draft.training) == (mode, other)
    drawn = method(model, asked, GREEDY)
    assert (model.training, draft.training) == (mode, other), "unread, it changes nothing"
    next(drawn)
    assert not model.training and not draft.training
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    drawn.close()
    assert (model.training, draft.training) == (mode, other)


def test_counts_are_those_of_the_last_call() -> None:
    model, method, asked = randomise(decoder), PromptLookup(), requests({5: 30})
    run_requests(model, asked, GREEDY, method)
    first = (method.proposed, method.accepted)
    run_requests(model, asked, GREEDY, method)
    assert (method.proposed, method.accepted) == first != (0, 0)


# Refusals ------------------------------------------------------------------------------------------------------------


def build_running() -> Decoder:
    """Build a model whose first layer has a running state."""

    def update(_: object, args: tuple[Tensor], given: dict[str, Any]) -> None:
        given["cache"][0].running["sum of keys"] = torch.zeros(len(args[0]), 1)

    model = decoder()
    model.register_forward_pre_hook(update, with_kwargs=True)
    return model


@pytest.mark.parametrize("who", ["model", "draft"])
def test_a_running_state_is_refused_by_name_before_anything_is_drawn(who: str) -> None:
    model = build_running() if who == "model" else decoder()
    method = PromptLookup() if who == "model" else Draft(build_running())
    drawn = method(model, requests({3: 9}), GREEDY)
    with pytest.raises(ValueError, match="cannot remove tokens: sum of keys is a running state without a past"):
        next(drawn)
    assert model.training


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PromptLookup(ngram=0), "method: PromptLookup has ngram 0, which must be at least 1"),
        (lambda: PromptLookup(tokens=0), "method: PromptLookup has tokens 0, which must be at least 1"),
        (lambda: Draft(decoder(), ahead=0), "method: Draft has ahead 0, which must be at least 1"),
    ],
    ids=["ngram", "tokens", "ahead"],
)
def test_refuses_options(build: Callable[[], Method], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


LIMITED = partial(decoder, embeddings=[partial(LearnedPositions, max_length=8)])


@pytest.mark.parametrize(
    ("method", "asked", "given", "message"),
    [
        (
            Draft(Ring()),
            {3: 9},
            None,
            "the draft has a vocabulary of 5 tokens and the model one of 11; give a draft that was trained with the "
            "same tokenizer",
        ),
        (
            Draft(LIMITED()),
            {3: 5, 2: 7},
            None,
            "a prompt and its completion may have 9 tokens, but the draft's positions reach only 8 "
            "(max_length); ask for fewer tokens, or decode without the draft",
        ),
        (
            Draft(LIMITED()),
            {2: 6, 1: 7},
            Inputs(prefix=torch.zeros(2, 4, DIM)),
            "a prompt and its completion may have 12 tokens, but the draft's positions reach only 8 "
            "(max_length); ask for fewer tokens, or decode without the draft",
        ),
        (PromptLookup(), {0: 5}, None, "the prompt is empty; give at least one token to start from"),
        (Draft(decoder()), {3: 0}, None, "generation has max_new_tokens 0, which must be at least 1"),
    ],
    ids=["vocabulary", "positions", "soft", "empty", "length"],
)
def test_refuses_before_anything_is_drawn(
    method: Method, asked: dict[int, int], given: Inputs | None, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        method(decoder(), requests(asked, given), GREEDY)
