"""Spread of single runs, estimated from many groups of few repeats."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from lightning_xt.commands.ablation.mean_tests import Spread

DEGREES = tuple(2.0 ** (power / 2) for power in range(-2, 21))
"""Degrees of freedom that are tried, 0.5 to 1,024; with more, groups differ by no more than chance."""
ROUNDS = 30
"""Steps of a search, each of which leaves 0.618 of its range."""


def share_spread(spreads: Sequence[Spread]) -> Spread | None:
    """Return what the spreads of groups say about the variance of another one; None if all repeats agree.

    The variances of groups are taken to be s * d / chi^2(d), with the s and d of greatest likelihood: d is large if
    the groups have the same variance, and small if their variances differ.

    Smyth, 2004: Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments. It estimates s and d by moments.
    """
    known = [each for each in spreads if each.variance > 0]
    if not known:
        return None
    total = math.fsum(each.degrees for each in known)
    pooled = math.fsum(each.degrees * each.variance for each in known) / total
    found = [(_rate_equal(known, pooled), Spread(pooled, math.inf, total))]
    logs = [math.log(each.variance) for each in known]
    for degrees in DEGREES:
        fit = partial(_rate, known, degrees)
        best = _find_maximum(fit, min(logs), max(logs))
        ways = math.fsum(math.lgamma((each.degrees + degrees) / 2) - math.lgamma(degrees / 2) for each in known)
        found.append((ways + fit(best), Spread(math.exp(best), degrees, total)))
    return max(found, key=lambda each: each[0])[1]


def _rate(spreads: Sequence[Spread], degrees: float, log_variance: float) -> float:
    """Return the log-likelihood of s, given d: variances over s have F distributions. Constants are omitted."""
    scale = degrees * math.exp(log_variance)
    total = 0.0
    for each in spreads:
        ratio = each.degrees * each.variance / scale
        total += each.degrees / 2 * math.log(ratio) - (each.degrees + degrees) / 2 * math.log1p(ratio)
    return total


def _rate_equal(spreads: Sequence[Spread], variance: float) -> float:
    """Return the log-likelihood of one variance of all groups; the same constants are omitted."""
    halves = ((each.degrees / 2, each.degrees * each.variance / (2 * variance)) for each in spreads)
    return math.fsum(half * math.log(ratio) - ratio for half, ratio in halves)


def _find_maximum(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one maximum has it, by sections of the range in the golden ratio."""
    section = (math.sqrt(5) - 1) / 2
    for _ in range(ROUNDS):
        left, right = high - section * (high - low), low + section * (high - low)
        if function(left) < function(right):
            low = left
        else:
            high = right
    return (low + high) / 2
