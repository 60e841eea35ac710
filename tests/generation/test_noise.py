"""Noise: right distributions, independent neighbours, the same numbers in any batch."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from lightning_xt.generation.noise import make_seeds, sample_gumbel, sample_tokens

# Chi-squared that a right sampler exceeds once in a thousand seeds, by degrees of freedom; our seeds are fixed.
CRITICAL = {4: 18.5, 8: 26.1, 9: 27.9}
PROBABILITIES = [0.4, 0.3, 0.2, 0.08, 0.02]


def compute_chi_squared(counts: list[int], expected: list[float]) -> float:
    draws = sum(counts)
    return sum((count - draws * p) ** 2 / (draws * p) for count, p in zip(counts, expected, strict=True))


def draw(seeds: Tensor, steps: Tensor, probabilities: list[float]) -> Tensor:
    return sample_tokens(torch.tensor([probabilities]).log().expand(len(seeds), -1), 1.0, seeds, steps)


def constant(value: int, like: Tensor) -> Tensor:
    return torch.full_like(like, value)


MANY = torch.arange(20000)
ROWS = {
    "seeds that follow each other": (MANY, constant(0, MANY)),
    "seeds far apart": (MANY * 2**40 - 2**54, constant(3, MANY)),
    "steps of one row": (constant(7, MANY), MANY),
    "steps of a row with a negative seed": (constant(-1, MANY), MANY),
    "seeds and steps together": (MANY // 100, MANY % 100),
    "seeds against steps": (-MANY, MANY),
}
EACH = pytest.mark.parametrize(("seeds", "steps"), ROWS.values(), ids=ROWS)


@EACH
def test_draws_follow_the_distribution(seeds: Tensor, steps: Tensor) -> None:
    counts = draw(seeds, steps, PROBABILITIES).bincount(minlength=5).tolist()
    assert compute_chi_squared(counts, PROBABILITIES) < CRITICAL[4]


@EACH
def test_noise_is_gumbel(seeds: Tensor, steps: Tensor) -> None:
    """Noise is Gumbel: ten bins of equal probability, for the first token and for a late one."""
    noise = sample_gumbel(seeds, steps, 300)
    assert noise.isfinite().all()
    for word in (0, 299):
        # exp(-exp(-x)) is uniform for such an x.
        bins = ((-(-noise[:, word].double()).exp()).exp() * 10).long().bincount(minlength=10).tolist()
        assert compute_chi_squared(bins, [0.1] * 10) < CRITICAL[9]


PAIR = [0.5, 0.3, 0.2]


@EACH
def test_neighbours_have_nothing_in_common(seeds: Tensor, steps: Tensor) -> None:
    """Draws of neighbouring rows and steps are independent: pairs are as frequent as products."""
    first = draw(seeds, steps, PAIR)
    together = [p * q for p, q in itertools.product(PAIR, PAIR)]
    for next_seeds, next_steps in ((seeds + 10**6, steps), (seeds, steps + 10**6), (seeds + 10**6, steps - 10**6)):
        second = draw(next_seeds, next_steps, PAIR)
        assert compute_chi_squared((first * 3 + second).bincount(minlength=9).tolist(), together) < CRITICAL[8]
    # Pairs without a common draw.
    pairs = first[::2] * 3 + first[1::2]
    assert compute_chi_squared(pairs.bincount(minlength=9).tolist(), together) < CRITICAL[8]


@pytest.mark.parametrize(("seed", "step"), [(1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (2**32, 0)])
def test_close_seeds_and_steps_draw_independently(seed: int, step: int) -> None:
    seeds, steps = MANY // 200 * 5, MANY % 200 * 7 + 1
    pairs = draw(seeds, steps, PAIR) * 3 + draw(seeds + seed, steps + step, PAIR)
    together = [p * q for p, q in itertools.product(PAIR, PAIR)]
    assert compute_chi_squared(pairs.bincount(minlength=9).tolist(), together) < CRITICAL[8]


def test_tokens_rows_and_steps_are_uncorrelated() -> None:
    noise = sample_gumbel(torch.arange(100).repeat_interleave(50), torch.arange(50).repeat(100), 11)
    table = noise.double().view(100, 50, 11)
    table = (table - table.mean()) / table.std()
    for axis, distance in itertools.product(range(3), (1, 2, 5)):
        size = table.shape[axis] - distance
        products = table.narrow(axis, 0, size) * table.narrow(axis, distance, size)
        assert abs(float(products.mean())) < 4 / math.sqrt(products.numel()), (axis, distance)
    # The next seed is not the next step.
    diagonal = table[1:, :-1] * table[:-1, 1:]
    assert abs(float(diagonal.mean())) < 4 / math.sqrt(diagonal.numel())


# The same numbers -----------------------------------------------------------------------------------------------------


def compute(seed: int, step: int, word: int) -> float:
    """Compute the definition with integers of any size."""
    golden = 0x9E3779B97F4A7C15

    def mix(x: int) -> int:
        x = (x + golden) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    share = ((mix(mix(mix(seed % 2**64) + step) + word * golden) >> 41) + 0.5) / 2**23
    return -math.log(-math.log1p(-share))


SEEDS = [0, 1, -1, 2**31, 2**63 - 1, -(2**63), 2**63, 2**64 + 5, 10**30, -(10**30)]


def test_any_whole_number_is_a_seed() -> None:
    noise = sample_gumbel(make_seeds(SEEDS, torch.device("cpu")), torch.tensor([0, 3] * 5), 7)
    expected = [[compute(seed, step, word) for word in range(7)] for seed, step in zip(SEEDS, [0, 3] * 5, strict=True)]
    torch.testing.assert_close(noise, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    same = sample_gumbel(make_seeds(SEEDS, torch.device("cpu")), torch.zeros(10, dtype=torch.long), 7)
    # 2^63 and -2^63 are the same in 64 bits, and so the same seed.
    assert len({tuple(row) for row in same.tolist()}) == len(SEEDS) - 1


def test_splitmix_begins_as_published() -> None:
    """The seed is mixed by the generator's first published number for seed 0."""
    x = 0x9E3779B97F4A7C15
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    assert x ^ x >> 31 == 0xE220A8397B1DCDAF
    assert compute(0, 0, 0) == pytest.approx(sample_gumbel(torch.tensor([0]), torch.tensor([0]), 1).item(), rel=1e-5)


def test_a_row_alone_or_among_others() -> None:
    seeds, steps = torch.tensor([5, -3, 5, 2**62, 0]), torch.tensor([0, 3, 4, 10**6, 3])
    together, logits = sample_gumbel(seeds, steps, 13), torch.randn(5, 13)
    tokens = sample_tokens(logits, 1.0, seeds, steps)
    order = [3, 0, 4, 2, 1]
    assert torch.equal(sample_gumbel(seeds[order], steps[order], 13), together[order])
    assert torch.equal(sample_tokens(logits[order], 1.0, seeds[order], steps[order]), tokens[order])
    for row in range(5):
        assert torch.equal(sample_gumbel(seeds[[row]], steps[[row]], 13), together[[row]])
        assert sample_tokens(logits[[row]], 1.0, seeds[[row]], steps[[row]]).tolist() == [tokens[row]]
    assert torch.equal(sample_gumbel(seeds, steps, 29)[:, :13], together), (
        "a larger vocabulary adds tokens and changes none"
    )


def test_no_generator_is_used() -> None:
    before = torch.get_rng_state()
    first = sample_gumbel(torch.tensor([1, 2]), torch.tensor([0, 0]), 7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(sample_gumbel(torch.tensor([1, 2]), torch.tensor([0, 0]), 7), first)


# Draws ----------------------------------------------------------------------------------------------------------------


def test_temperature_zero_takes_the_most_likely() -> None:
    logits = torch.randn(200, 11)
    seeds = steps = torch.arange(200)
    assert torch.equal(sample_tokens(logits, 0, seeds, steps), logits.argmax(dim=-1))
    assert torch.equal(sample_tokens(logits, 0.0, seeds, steps), logits.argmax(dim=-1))
    assert not torch.equal(sample_tokens(logits, 1.0, seeds, steps), logits.argmax(dim=-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tokens_that_are_ruled_out_are_never_drawn(dtype: torch.dtype) -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, -1.0, -math.inf]], dtype=dtype).expand(2000, -1)
    assert sample_tokens(logits, 1.0, torch.arange(2000), torch.zeros(2000, dtype=torch.long)).unique().tolist() == [
        1,
        3,
    ]
    one = torch.full((2000, 5), -math.inf, dtype=dtype).index_fill(1, torch.tensor([4]), -900.0)
    assert sample_tokens(one, 1.0, torch.arange(2000), torch.zeros(2000, dtype=torch.long)).unique().tolist() == [4]
