"""Filters against one row at a time, in plain Python."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_xt.generation.engine import standard_filters
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.min_p import MinP
from lightning_xt.generation.filters.temperature import Temperature
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.filters.top_p import TopP
from lightning_xt.generation.history import History


def of(probabilities: list[float]) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def nothing(rows: int) -> History:
    """One token read, none drawn."""
    ones = torch.ones(rows, dtype=torch.long)
    return History(ones[:, None], ones, ones)


def kept(apply: Filter, logits: Tensor) -> list[list[int]]:
    """Words that stay, row by row; what stays is as it was."""
    out = apply(logits, nothing(len(logits)))
    stays = out > -math.inf
    assert torch.equal(out[stays], logits[stays])
    return [row.nonzero().flatten().tolist() for row in stays]


def likeliest(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda word: -row[word])


def top_k(row: list[float], k: int) -> set[int]:
    return set(likeliest(row)[:k])


def top_p(row: list[float], p: float) -> set[int]:
    total, taken = sum(math.exp(x) for x in row), 0.0
    chosen: set[int] = set()
    for word in likeliest(row):
        if taken >= p:
            break
        chosen.add(word)
        taken += math.exp(row[word]) / total
    return chosen


def min_p(row: list[float], p: float) -> set[int]:
    total = sum(math.exp(x) for x in row)
    probabilities = [math.exp(x) / total for x in row]
    return {word for word, each in enumerate(probabilities) if each >= p * max(probabilities)}


@pytest.mark.parametrize(
    ("apply", "naive", "value"),
    [
        *[(TopK(k), top_k, k) for k in (1, 2, 5, 11, 50)],
        *[(TopP(p), top_p, p) for p in (0.01, 0.3, 0.5, 0.9, 0.999, 1.0)],
        *[(MinP(p), min_p, p) for p in (0.0, 0.01, 0.1, 0.5, 1.0)],
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Filter) else str(value) if type(value) is float else "",
)
def test_keeps_what_the_definition_keeps(
    apply: Filter, naive: Callable[[list[float], float], set[int]], value: float
) -> None:
    logits = 2 * torch.randn(50, 11, dtype=torch.float64)
    assert [set(row) for row in kept(apply, logits)] == [naive(row, value) for row in logits.tolist()]


def test_top_p_keeps_the_word_that_crosses() -> None:
    logits = of([0.2, 0.5, 0.3])
    assert kept(TopP(0.4), logits) == [[1]]
    assert kept(TopP(0.55), logits) == [[1, 2]]
    assert kept(TopP(0.85), logits) == [[0, 1, 2]]
    assert kept(TopP(1e-9), logits) == [[1]]


def test_top_p_of_exactly_the_first_words() -> None:
    # 0.5 and 0.25 are exact, so the sum reaches 0.75 with the second word.
    assert kept(TopP(0.75), torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log2() * math.log(2)) == [[0, 1]]


def test_top_p_of_one_keeps_even_what_rounding_would_drop() -> None:
    logits = torch.tensor([[0.0, -200.0]])
    assert kept(TopP(1.0), logits) == [[0, 1]]


def test_top_k_keeps_all_that_tie_with_the_last() -> None:
    assert kept(TopK(2), torch.tensor([[3.0, 1.0, 1.0, 0.0, 1.0]])) == [[0, 1, 2, 4]]


def test_min_p_by_hand() -> None:
    logits = of([0.4, 0.3, 0.2, 0.1])
    assert kept(MinP(0.26), logits) == [[0, 1, 2]]
    assert kept(MinP(0.76), logits) == [[0]]


def test_temperature_divides() -> None:
    assert Temperature(0.5)(torch.tensor([[1.0, -3.0]]), nothing(1)).diff().tolist() == [[-8.0]]
    tiny = Temperature(1e-30)(torch.tensor([[1.0, 3.0]]), nothing(1))
    assert tiny.softmax(-1).tolist() == [[0.0, 1.0]]


def test_filters_apply_after_the_temperature_in_a_fixed_order() -> None:
    filters = standard_filters(min_p=0.1, top_p=0.9, top_k=3, temperature=2.0)
    assert [type(each) for each in filters] == [Temperature, TopK, TopP, MinP]
    assert standard_filters() == [] and standard_filters(temperature=0.0) == []
    # At temperature 2 the first of 0.64, 0.32, 0.04 has 0.8 / (0.8 + 0.566 + 0.2) = 0.51 of the probability: with
    # top_p 0.6 two words stay. Before the temperature the first alone would do.
    logits = of([0.64, 0.32, 0.04])
    for apply in standard_filters(temperature=2.0, top_p=0.6):
        logits = apply(logits, nothing(1))
    assert (logits > -math.inf).tolist() == [[True, True, False]]
    assert kept(TopP(0.6), of([0.64, 0.32, 0.04])) == [[0]]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TopK(0), "top_k must be at least 1, not 0"),
        (lambda: TopP(0.0), "top_p must be above 0 and at most 1, not 0.0"),
        (lambda: TopP(1.5), "top_p must be above 0 and at most 1, not 1.5"),
        (lambda: MinP(-0.1), "min_p must be from 0 to 1, not -0.1"),
        (lambda: MinP(1.1), "min_p must be from 0 to 1, not 1.1"),
        (lambda: Temperature(-1.0), "temperature must be above 0, not -1.0; 0 itself means greedy decoding"),
        (lambda: Temperature(math.nan), "temperature must be above 0, not nan; 0 itself means greedy decoding"),
    ],
    ids=["top_k", "top_p", "top_p_high", "min_p", "min_p_high", "temperature", "temperature_nan"],
)
def test_refuses(build: Callable[[], Filter], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build()
