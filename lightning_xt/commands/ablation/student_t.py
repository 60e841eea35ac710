"""Student's t distribution, by the regularised incomplete beta function."""

import math

TINY = 1e-300
"""Stands for zero where a fraction divides by it."""
PRECISION = 1e-15
MOST_TERMS = 10_000


def find_p_value(t: float, degrees: float) -> float:
    """Return the probability of a value at least as far from 0 on either side."""
    if math.isinf(t):
        return 0.0
    if math.isinf(degrees):
        # The normal distribution.
        return math.erfc(abs(t) / math.sqrt(2))
    return regularized_beta(degrees / (degrees + t * t), degrees / 2, 0.5)


def find_quantile(confidence: float, degrees: float) -> float:
    """Return the value that a t exceeds in size with a probability of 1 - confidence: 2.776 for 0.95 and 4 degrees."""
    low, high = 0.0, 1.0
    while find_p_value(high, degrees) > 1 - confidence:
        low, high = high, 2 * high
    # As far as floats distinguish.
    while low < (middle := (low + high) / 2) < high:
        if find_p_value(middle, degrees) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def regularized_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function of x from 0 to 1, with parameters a and b above 0."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    # The continued fraction converges fast below the mean; beyond it the function is mirrored.
    if x > (a + 1) / (a + b + 2):
        return 1 - regularized_beta(1 - x, b, a)
    gammas = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(gammas + a * math.log(x) + b * math.log1p(-x))
    return front / a / _evaluate_fraction(x, a, b)


def _evaluate_fraction(x: float, a: float, b: float) -> float:
    """Evaluate the continued fraction 1 + d1 / (1 + d2 / (1 + ...)) of the function (DLMF 8.17.22) from the front.

    The method is Lentz's, with Thompson and Barnett's guard against a zero.
    """
    value, upper, lower = 1.0, 1.0, 0.0
    for number in range(1, MOST_TERMS):
        m, odd = divmod(number, 2)
        if odd:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / ((1 + term * lower) or TINY)
        upper = (1 + term / upper) or TINY
        value *= upper * lower
        if abs(upper * lower - 1) < PRECISION:
            break
    return value
