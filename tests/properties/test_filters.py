"""Filters of generation against plain Python, one row at a time."""

import math
from typing import Any

import torch
from hypothesis import strategies as st
from properties.holds import holds
from torch import Tensor

from lightning_xt.generation.filters.banned import Banned
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.epsilon_cutoff import EpsilonCutoff
from lightning_xt.generation.filters.forced import Forced
from lightning_xt.generation.filters.frequency_penalty import FrequencyPenalty
from lightning_xt.generation.filters.logit_bias import LogitBias
from lightning_xt.generation.filters.min_length import MinLength
from lightning_xt.generation.filters.min_p import MinP
from lightning_xt.generation.filters.no_repeat_ngram import NoRepeatNgram
from lightning_xt.generation.filters.presence_penalty import PresencePenalty
from lightning_xt.generation.filters.repetition_penalty import RepetitionPenalty
from lightning_xt.generation.filters.temperature import Temperature
from lightning_xt.generation.filters.top_a import TopA
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.filters.top_p import TopP
from lightning_xt.generation.filters.typical import Typical
from lightning_xt.generation.history import History

WORDS, END = 7, 2
OUT = -math.inf
IDS = st.lists(st.integers(0, WORDS - 1), max_size=4)
SHARES = st.floats(0, 1, exclude_min=True)
# Recipes: the package's annotation checks draw random numbers, which a strategy must not.
RECIPES = st.one_of(
    st.tuples(st.just(Banned), IDS),
    st.tuples(st.just(EpsilonCutoff), st.floats(0, 1)),
    st.tuples(st.just(Forced), IDS),
    st.tuples(st.just(FrequencyPenalty), st.floats(-9, 9)),
    st.tuples(st.just(LogitBias), st.dictionaries(st.integers(0, WORDS - 1), st.floats(-9, 9), max_size=3)),
    st.tuples(st.just(MinLength), st.integers(0, 6)),
    st.tuples(st.just(MinP), st.floats(0, 1)),
    st.tuples(st.just(NoRepeatNgram), st.integers(1, 4)),
    st.tuples(st.just(PresencePenalty), st.floats(-9, 9)),
    st.tuples(st.just(RepetitionPenalty), st.floats(0.1, 9)),
    st.tuples(st.just(Temperature), st.floats(1e-30, 1e30)),
    st.tuples(st.just(TopA), st.floats(0, 1), st.floats(0, 3)),
    st.tuples(st.just(TopK), st.integers(1, 9)),
    st.tuples(st.just(TopP), SHARES),
    st.tuples(st.just(Typical), SHARES),
)


def build(recipe: tuple[Any, ...]) -> Filter:
    """Build a filter from a class and its options."""
    kind, *options = recipe
    found: Filter = kind(*options)
    return found


@st.composite
def draw_rows(draw: Any) -> tuple[Tensor, History]:
    """Draw logits of a few rows, with some tokens ruled out, and the prompts and tokens of the rows."""
    count, width = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    number = st.floats(-30, 30, width=32)
    logits = draw(st.lists(st.lists(number, min_size=WORDS, max_size=WORDS), min_size=count, max_size=count))
    ruled = torch.tensor(logits)
    for row in ruled:
        for word in draw(st.lists(st.integers(0, WORDS - 1), max_size=WORDS - 1, unique=True)):
            row[word] = OUT
    tokens = draw(
        st.lists(st.lists(st.integers(0, WORDS - 1), min_size=width, max_size=width), min_size=count, max_size=count)
    )
    lengths = [draw(st.integers(1, width)) for _ in range(count)]
    prompts = [draw(st.integers(1, length)) for length in lengths]
    end = draw(st.none() | st.just(END))
    return ruled, History(torch.tensor(tokens), torch.tensor(prompts), torch.tensor(lengths), end)


@holds(drawn=draw_rows(), recipe=RECIPES)
def test_a_filter_gives_numbers_and_revives_nothing(drawn: tuple[Tensor, History], recipe: Any) -> None:
    (logits, history), apply = drawn, build(recipe)
    before = logits.clone()
    out = apply(logits, history)
    assert torch.equal(logits, before), "what it was given has changed"
    assert out.shape == logits.shape and out.dtype == logits.dtype
    assert not out.isnan().any() and not (out == math.inf).any()
    assert (out > OUT).any(dim=1).all(), "a row has no token left"
    if not isinstance(apply, Forced):
        assert (out[before == OUT] == OUT).all()


@holds(drawn=draw_rows(), recipe=RECIPES, order=st.randoms(use_true_random=False))
def test_a_row_is_filtered_alike_alone_and_in_any_place(drawn: tuple[Tensor, History], recipe: Any, order: Any) -> None:
    (logits, history), apply = drawn, build(recipe)
    out = apply(logits, history)
    numbers = list(range(len(logits)))
    order.shuffle(numbers)
    moved = History(history.tokens[numbers], history.prompts[numbers], history.lengths[numbers], history.end)
    assert torch.equal(apply(logits[numbers], moved), out[numbers])
    for row in range(len(logits)):
        one = slice(row, row + 1)
        alone = History(history.tokens[one], history.prompts[one], history.lengths[one], history.end)
        assert torch.equal(apply(logits[one], alone), out[one])


def apply_plainly(
    apply: Filter, logits: list[float], read: list[int], drawn: list[int], end: int | None
) -> list[float]:
    """Apply a filter to one row in plain Python."""
    past, last = [*read, *drawn], max(logits)
    if isinstance(apply, Banned):
        return rule_out(logits, {*apply.tokens})
    if isinstance(apply, MinLength):
        return rule_out(logits, {end} if end is not None and len(drawn) < apply.length else set())
    if isinstance(apply, NoRepeatNgram):
        seen = {tuple(past[first : first + apply.n]) for first in range(len(past) - apply.n + 1)}
        seen = {gram for gram in seen if end not in gram}
        ending = tuple(past[len(past) - apply.n + 1 :]) if apply.n > 1 else ()
        known = len(past) >= apply.n - 1
        return rule_out(logits, {word for word in range(WORDS) if known and (*ending, word) in seen})
    if isinstance(apply, LogitBias):
        return [each + apply.biases.get(word, 0.0) for word, each in enumerate(logits)]
    if isinstance(apply, FrequencyPenalty):
        return [each - apply.penalty * drawn.count(word) * (word != end) for word, each in enumerate(logits)]
    if isinstance(apply, PresencePenalty):
        return [each - apply.penalty * (word in drawn and word != end) for word, each in enumerate(logits)]
    if isinstance(apply, RepetitionPenalty):
        scaled = [each / apply.factor if each > 0 else each * apply.factor for each in logits]
        return [scaled[word] if word in past and word != end else each for word, each in enumerate(logits)]
    if isinstance(apply, TopK):
        least = sorted(logits, reverse=True)[min(apply.k, WORDS) - 1]
        return [each if each >= least else OUT for each in logits]
    if isinstance(apply, Forced) and len(drawn) < len(apply.tokens):
        return [0.0 if word == apply.tokens[len(drawn)] else OUT for word in range(WORDS)]
    assert isinstance(apply, Forced) and last > OUT
    return logits


def rule_out(logits: list[float], words: set[int]) -> list[float]:
    left = [OUT if word in words else each for word, each in enumerate(logits)]
    best = max(logits)
    return left if max(left) > OUT else [each if each == best else OUT for each in logits]


PLAIN = RECIPES.filter(lambda recipe: recipe[0] not in (EpsilonCutoff, MinP, Temperature, TopA, TopP, Typical))


@holds(drawn=draw_rows(), recipe=PLAIN)
def test_a_filter_does_what_it_says(drawn: tuple[Tensor, History], recipe: Any) -> None:
    (logits, history), apply = drawn, build(recipe)
    logits = logits.double()
    out = apply(logits, history)
    for row in range(len(logits)):
        length, prompt = int(history.lengths[row]), int(history.prompts[row])
        tokens = history.tokens[row].tolist()
        expected = apply_plainly(apply, logits[row].tolist(), tokens[:prompt], tokens[prompt:length], history.end)
        assert out[row].tolist() == expected


@holds(drawn=draw_rows(), p=SHARES)
def test_a_nucleus_reaches_its_fraction_and_is_minimal(drawn: tuple[Tensor, History], p: float) -> None:
    logits, history = drawn
    logits = logits.double()
    kept = TopP(p)(logits, history) > OUT
    for probabilities, stays in zip(logits.softmax(dim=1), kept, strict=True):
        inside = probabilities[stays].sum().item()
        assert inside >= p - 1e-9
        assert inside - probabilities[stays].min().item() < p + 1e-9
        outside = probabilities[~stays]
        assert not len(outside) or outside.max() <= probabilities[stays].min()


@holds(drawn=draw_rows(), p=st.floats(0.01, 1))
def test_min_p_keeps_what_is_likely_enough(drawn: tuple[Tensor, History], p: float) -> None:
    logits, history = drawn
    logits = logits.double()
    kept = MinP(p)(logits, history) > OUT
    for probabilities, stays in zip(logits.softmax(dim=1), kept, strict=True):
        least = p * probabilities.max()
        assert (probabilities[stays] >= least * (1 - 1e-9)).all()
        assert (probabilities[~stays] <= least * (1 + 1e-9)).all()
