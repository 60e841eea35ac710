"""Means of repeated runs: intervals, Welch's t-test, and Holm's correction for several tests."""

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
class Difference:
    """Difference between the means of two groups of repeats.

    Welch's test asks whether the means differ, whatever the variances. Of three repeats it knows the variance badly, so
    that few differences pass it after a correction for many rows. Student's test takes the variances as equal, as they
    are if nothing was changed, and so asks whether the groups differ at all.

    Args:
        value: the first mean minus the second.
        margin: half the width of its 95 % interval, by Welch's test.
        t: the difference in standard errors, by Welch's test.
        p: probability of a difference at least as large if there is none, two-sided, by Welch's test.
        degrees: degrees of freedom of Welch's test.
        p_equal: the probability by Student's test, with equal variances.
    """

    value: float
    margin: float
    t: float
    p: float
    degrees: float
    p_equal: float


def average(values: Sequence[float]) -> Mean:
    """Average repeats of at least one run."""
    if len(values) < 2:
        return Mean(values[0], None, None, 1)
    deviation = math.sqrt(variance(values))
    margin = find_quantile(CONFIDENCE, len(values) - 1) * deviation / math.sqrt(len(values))
    return Mean(fmean(values), margin, deviation, len(values))


def compare_means(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Compare two groups of repeats, whose variances may differ; None if one has fewer than two repeats.

    Welch, 1947: The generalization of "Student's" problem when several different population variances are involved.
    """
    if min(len(first), len(second)) < 2:
        return None
    parts = [variance(each) / len(each) for each in (first, second)]
    value, error = fmean(first) - fmean(second), math.sqrt(sum(parts))
    if not error:
        # All repeats agree.
        t, p = (math.copysign(math.inf, value), 0.0) if value else (0.0, 1.0)
        return Difference(value, 0.0, t, p, math.inf, p)
    weights = (part**2 / (len(each) - 1) for part, each in zip(parts, (first, second), strict=True))
    degrees = sum(parts) ** 2 / sum(weights)
    margin = find_quantile(CONFIDENCE, degrees) * error
    pooled = _pool_error(first, second)
    p, p_equal = find_p_value(value / error, degrees), find_p_value(value / pooled, len(first) + len(second) - 2)
    return Difference(value, margin, value / error, p, degrees, p_equal)


def _pool_error(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the standard error of a difference of means whose variances are equal."""
    squares = sum((len(each) - 1) * variance(each) for each in (first, second))
    return math.sqrt(squares / (len(first) + len(second) - 2) * (1 / len(first) + 1 / len(second)))


def correct_for_number(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, so that false alarms among all of them together stay as rare as of one.

    Holm, 1979: A simple sequentially rejective multiple test procedure.
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = least
    return corrected
