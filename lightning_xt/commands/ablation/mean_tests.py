"""Means of repeated runs: intervals, tests of their differences, and Holm's correction for several tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from lightning_xt.commands.ablation.student_t import find_p_value, find_quantile

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
"""Corrected p-values below it are said to be more than noise."""


@dataclass(frozen=True)
class Mean:
    """Mean of repeats, with its 95 % interval.

    Args:
        value: the mean.
        margin: half of the interval's width. None = a single repeat, which has none.
        deviation: standard deviation of the repeats. None = a single repeat.
        repeats: how often it was measured.
    """

    value: float
    margin: float | None
    deviation: float | None
    repeats: int


@dataclass(frozen=True)
class Spread:
    """Variance of single runs, as far as it is known.

    Args:
        variance: the variance.
        degrees: its degrees of freedom; infinite = that of each group.
        most: most degrees of freedom of a test with it: those of all groups that it was estimated from.
    """

    variance: float
    degrees: float
    most: float = math.inf


@dataclass(frozen=True)
class Difference:
    """Difference between means of groups of repeats.

    Args:
        value: the difference.
        error: its standard error.
        margin: half the width of its 95 % interval.
        p: probability of a difference at least as large if there is none, two-sided.
        degrees: degrees of freedom of the test.
    """

    value: float
    error: float
    margin: float
    p: float
    degrees: float


def average(values: Sequence[float]) -> Mean:
    """Average repeats of at least one run."""
    if len(values) < 2:
        return Mean(values[0], None, None, 1)
    deviation = math.sqrt(variance(values))
    margin = find_quantile(CONFIDENCE, len(values) - 1) * deviation / math.sqrt(len(values))
    return Mean(fmean(values), margin, deviation, len(values))


def find_spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least two repeats as they alone show it."""
    return Spread(variance(values), len(values) - 1)


def compare_means(first: Sequence[float], second: Sequence[float], prior: Spread | None = None) -> Difference | None:
    """Return the first mean minus the second, and test whether it is 0; None if one has fewer than two repeats.

    See `compute_contrast` for the prior.
    """
    return compute_contrast([(1.0, first), (-1.0, second)], prior)


def compute_contrast(groups: Sequence[tuple[float, Sequence[float]]], prior: Spread | None = None) -> Difference | None:
    """Return a weighted sum of means, and test whether it is 0; None if a group has fewer than two repeats.

    Without a prior each group's variance is that of its repeats, so that a test of two groups is Welch's.

    Args:
        groups: for each group its weight in the sum, and its repeats.
        prior: a spread that is known from many groups, by which each variance is moderated.

    Welch, 1947: The generalization of "Student's" problem when several different population variances are involved.
    Smyth, 2004: Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments.
    """
    if any(len(values) < 2 for _, values in groups):
        return None
    value = math.fsum(weight * fmean(values) for weight, values in groups)
    spreads = [moderate(find_spread(values), prior) for _, values in groups]
    parts = [weight**2 * each.variance / len(values) for (weight, values), each in zip(groups, spreads, strict=True)]
    error = math.sqrt(sum(parts))
    if not error:
        # All repeats agree.
        return Difference(value, 0.0, 0.0, 0.0 if value else 1.0, math.inf)
    weights = math.fsum(part**2 / each.degrees for part, each in zip(parts, spreads, strict=True))
    degrees = min(sum(parts) ** 2 / weights if weights else math.inf, math.inf if prior is None else prior.most)
    margin = find_quantile(CONFIDENCE, degrees) * error
    return Difference(value, error, margin, find_p_value(value / error, degrees), degrees)


def moderate(spread: Spread, prior: Spread | None) -> Spread:
    """Return a spread in which a prior counts by its degrees of freedom."""
    if prior is None or not prior.degrees:
        return spread
    if math.isinf(prior.degrees):
        return prior
    degrees = spread.degrees + prior.degrees
    return Spread((spread.degrees * spread.variance + prior.degrees * prior.variance) / degrees, degrees)


def correct_for_number(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, so that false alarms among all of them together stay as rare as of one.

    Holm, 1979: A simple sequentially rejective multiple test procedure.
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = least
    return corrected
