"""Denoisers: what they hide, how often, and that the target restores it."""

import math
import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from catalogue import list_variants

from lightning_xt.data.denoisers.base import Corrupted, Denoiser, MarkedSpans
from lightning_xt.data.denoisers.draws import Draws
from lightning_xt.data.denoisers.sequential_denoising import SequentialDenoising
from lightning_xt.data.denoisers.span_corruption import SpanCorruption
from lightning_xt.data.denoisers.text_infilling import TextInfilling

SENTINELS = np.arange(1000, 1100)


def corrupt(denoiser: Denoiser, n: int, seed: int) -> Corrupted:
    return denoiser.corrupt(np.arange(n), SENTINELS, Draws(seed))


def restore(made: Corrupted) -> list[int]:
    """Put each span of the target in the place of its sentinel."""
    spans: dict[int, list[int]] = {}
    for token in made.target.tolist():
        if token >= 1000:
            spans[token] = []
        else:
            spans[max(spans)].append(token)
    # Sentinels appear in order, each once, and in the source too.
    assert list(spans) == list(range(1000, 1000 + len(spans)))
    assert [token for token in made.source.tolist() if token >= 1000] == list(spans)
    return [each for token in made.source.tolist() for each in spans.get(token, [token])]


def find_hidden(made: Corrupted) -> tuple[int, ...]:
    return tuple(token for token in made.target.tolist() if token < 1000)


def assert_equally_likely(counts: Counter, kinds: int) -> None:
    """A chi-squared test at 5 deviations."""
    assert len(counts) == kinds
    expected = counts.total() / kinds
    statistic = sum((count - expected) ** 2 for count in counts.values()) / expected
    assert statistic < kinds - 1 + 5 * math.sqrt(2 * (kinds - 1))


def test_marked_spans_by_hand() -> None:
    """Ids 0 .. 6; a span of 2 at 1, a mark alone at 4, a span of 1 at 6."""
    starts, lengths = np.asarray([1, 4, 6]), np.asarray([2, 0, 1])
    marked = MarkedSpans(np.arange(7), starts, lengths, np.asarray([91, 92, 93]))
    assert marked.hide().tolist() == [0, 91, 3, 92, 4, 5, 93]
    assert marked.list_spans().tolist() == [91, 1, 2, 92, 93, 6]


@pytest.mark.parametrize(
    "denoiser", [SpanCorruption(), SpanCorruption(fraction=0.5, mean_length=1), SequentialDenoising()]
)
def test_the_target_restores_the_source(denoiser: Denoiser) -> None:
    for n in (1, 2, 3, 7, 30, 64):
        for seed in range(20):
            made = corrupt(denoiser, n, seed)
            assert restore(made) == list(range(n))
            assert 1 <= len(find_hidden(made)) <= max(1, n - (n > 1 and isinstance(denoiser, SpanCorruption)))


def test_numbers_of_hidden_tokens_and_spans_are_those_of_t5() -> None:
    """Of 100 tokens 15 are hidden, in 5 spans of 3 in the mean: 90 ids to read, 20 to write."""
    for seed in range(10):
        made = corrupt(SpanCorruption(), 100, seed)
        assert (len(made.source), len(made.target)) == (90, 20)
    made = corrupt(SpanCorruption(fraction=0.5, mean_length=8), 64, 0)
    assert (len(made.source), len(made.target)) == (36, 36)
    assert SpanCorruption().measure(100) == (90, 20)
    assert SpanCorruption().count_sentinels(100) == 5


@pytest.mark.parametrize(("n", "fraction", "mean_length", "hidden", "spans"), [(6, 0.5, 1.5, 3, 2), (5, 0.4, 2, 2, 1)])
def test_all_choices_of_spans_are_equally_likely(
    n: int, fraction: float, mean_length: float, hidden: int, spans: int
) -> None:
    denoiser = SpanCorruption(fraction=fraction, mean_length=mean_length)
    counts = Counter(find_hidden(corrupt(denoiser, n, seed)) for seed in range(4000))
    # Independently: all sets of hidden places with this number of runs.
    fits = [
        places for places in combinations(range(n), hidden) if sum(place - 1 not in places for place in places) == spans
    ]
    assert set(counts) == set(fits)
    assert_equally_likely(counts, len(fits))
    # Unlike in T5's code, some begin with a span, and some end without one.
    assert any(0 in places for places in fits) and any(n - 1 not in places for places in fits)


def test_a_sequential_denoiser_hides_the_end() -> None:
    counts: Counter = Counter()
    for seed in range(4000):
        hidden = find_hidden(corrupt(SequentialDenoising(), 20, seed))
        assert hidden == tuple(range(20 - len(hidden), 20))
        counts[len(hidden)] += 1
    assert set(counts) == set(range(1, 11))
    assert_equally_likely(counts, 10)
    whole = corrupt(SequentialDenoising(min_hidden=1.0, max_hidden=1.0), 5, 0)
    assert whole.source.tolist() == [1000] and whole.target.tolist() == [1000, 0, 1, 2, 3, 4]
    assert SequentialDenoising().measure(20) == (20, 11)


def test_infilling_restores_all_of_the_text_from_one_kind_of_mask() -> None:
    lengths: Counter = Counter()
    for seed in range(400):
        made = corrupt(TextInfilling(), 200, seed)
        assert made.target.tolist() == list(range(200))
        kept = [token for token in made.source.tolist() if token < 1000]
        assert set(made.source.tolist()) - set(kept) == {1000}
        assert len(kept) == 140
        # Each gap between kept tokens is one mask, or none; spans of no token are masks between neighbours.
        row = [-1, *made.source.tolist(), 200]
        for at in range(1, len(row) - 1):
            if row[at] == 1000:
                assert row[at - 1] != 1000 and row[at + 1] != 1000
                lengths[row[at + 1] - row[at - 1] - 1] += 1
    total = lengths.total()
    # The last span of a row is cut, one in about twenty.
    for length in range(6):
        poisson = math.exp(-3) * 3**length / math.factorial(length)
        assert lengths[length] / total == pytest.approx(poisson, abs=0.02), length


@pytest.mark.parametrize("mean_length", [1, 3, 20])
@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.6, 0.9])
def test_infilling_hides_its_fraction(fraction: float, mean_length: float) -> None:
    denoiser = TextInfilling(hidden_fraction=fraction, mean_length=mean_length)
    for n in (2, 3, 7, 40, 200):
        hidden = max(1, min(math.ceil(n * fraction), n - 1))
        for seed in range(20):
            source = corrupt(denoiser, n, seed).source
            is_mask = source == 1000
            assert (~is_mask).sum() == n - hidden
            assert not (is_mask[1:] & is_mask[:-1]).any()


def test_spans_of_infilling_are_lengthened_at_random() -> None:
    """Hide 180 of 200 tokens in 21 spans, of Poisson mean 3: 117 of them lengthen spans, as in independent draws."""
    lengths = []
    for seed in range(200):
        row = np.concatenate(([-1], corrupt(TextInfilling(hidden_fraction=0.9), 200, seed).source, [200]))
        (at,) = np.nonzero(row == 1000)
        lengths.append(row[at + 1] - row[at - 1] - 1)
    spans = np.asarray(lengths)
    assert spans.shape == (200, 21) and (spans.sum(1) == 180).all()
    # Multinomial: 180 tokens, each in one of 21 spans.
    assert spans.var() == pytest.approx(180 * 20 / 21**2, rel=0.1)
    assert spans.mean(0) == pytest.approx(180 / 21, abs=1)


def test_short_sequences_have_a_mask() -> None:
    for n in range(1, 12):
        for seed in range(30):
            made = corrupt(TextInfilling(hidden_fraction=0.5), n, seed)
            assert 1000 in made.source
            assert made.target.tolist() == list(range(n))


@pytest.mark.parametrize(
    "denoiser",
    [
        SpanCorruption(),
        SpanCorruption(fraction=0.5, mean_length=1),
        SpanCorruption(fraction=0.9, mean_length=2),
        SequentialDenoising(min_hidden=0.2),
        TextInfilling(),
        TextInfilling(hidden_fraction=0.9, mean_length=1),
    ],
)
def test_no_sequence_is_longer_than_said(denoiser: Denoiser) -> None:
    for n in (1, 2, 5, 19, 20):
        most, sentinels = denoiser.measure(20), denoiser.count_sentinels(20)
        for seed in range(50):
            made = corrupt(denoiser, n, seed)
            assert len(made.source) <= most[0] and len(made.target) <= most[1]
            assert len({*made.source.tolist(), *made.target.tolist()} - set(range(n))) <= sentinels


def test_draws_are_a_pure_function_of_the_seed() -> None:
    one, other = Draws(7), Draws(7)
    assert one.draw_uniform(5).tolist() == [*other.draw_uniform(2).tolist(), *other.draw_uniform(3).tolist()]
    assert one.draw_uniform(1) != Draws(8, used=5).draw_uniform(1)
    drawn = Draws(3).draw_uniform(2000)
    assert drawn.min() >= 0 and drawn.max() < 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.03)
    counts = Counter(tuple(Draws(seed).split(5, 3).tolist()) for seed in range(3000))
    assert all(sum(parts) == 5 and min(parts) >= 1 for parts in counts)
    assert_equally_likely(counts, 6)


@pytest.mark.parametrize(
    ("kind", "options", "rule"),
    [
        (SpanCorruption, {"fraction": 0.0}, "fraction 0.0, which must be above 0 and below 1"),
        (SpanCorruption, {"fraction": 1.0}, "fraction 1.0, which must be above 0 and below 1"),
        (SpanCorruption, {"mean_length": 0.5}, "mean_length 0.5, which must be at least 1"),
        (SequentialDenoising, {"min_hidden": -1.0}, "min_hidden -1.0, which must be from 0 to 1"),
        (SequentialDenoising, {"max_hidden": 1.5}, "max_hidden 1.5, which must be from 0 to 1"),
        (SequentialDenoising, {"min_hidden": 0.6}, "min_hidden 0.6, which is above max_hidden 0.5; swap them"),
        (TextInfilling, {"hidden_fraction": 1.0}, "hidden_fraction 1.0, which must be above 0 and below 1"),
        (TextInfilling, {"mean_length": 0.0}, "mean_length 0.0, which must be at least 1"),
        *((kind, {"weight": 0.0}, "weight 0.0, which must be above 0") for kind in list_variants(Denoiser)),
        *((kind, {"mode": "[R]"}, "mode '[R]'; give it a name without brackets") for kind in list_variants(Denoiser)),
    ],
)
def test_refuses_invalid_options(kind: type, options: dict, rule: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"--data.denoisers: {kind.__name__} has {rule}")):
        kind(**options)
