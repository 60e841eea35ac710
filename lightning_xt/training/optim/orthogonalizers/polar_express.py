import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_xt.system.option_checks import check_option
from lightning_xt.training.optim.orthogonalizers.base import Orthogonalizer, apply_quintic, divide_by_norm

Quintic = tuple[float, float, float]
"""Coefficients of s, s^3 and s^5."""

CUSHION = 0.02407327424182761
"""Smallest lower end of an interval, as a fraction of its upper: from a lower one the rest would hardly come nearer."""
SAFETY = 1.01
"""Factor by which rounding may take singular values out of their interval."""
EXCHANGES = 20
"""Limit of the exchanges for a quintic; about six are needed."""
NEARLY_ONE = 1 - 5e-6
"""Ratio of the ends of an interval above which float64 does not distinguish its quintic from that of a point."""


class PolarExpress(Orthogonalizer):
    """Iterations of quintic polynomials, each the best for the singular values that the one before leaves.

    Amsel et al., 2025. https://arxiv.org/abs/2505.16932
    Each quintic comes nearest to 1, in the largest error, over the interval of the singular values. All but the last
    leave room for rounding; the paper's list of five leaves it in all.

    Args:
        steps: iterations, in three products each.
        least: smallest singular value that the iterations are made for, as a fraction of the matrix's Frobenius norm.
            Smaller ones grow too, by a fixed factor.
    """

    def __init__(self, steps: int = 5, least: float = 1e-3) -> None:
        check_option("optimizer: PolarExpress", "steps", steps, least=1, below=100)
        check_option("optimizer: PolarExpress", "least", least, above=0, below=1)
        self.steps, self.least = steps, least
        *first, last = compute_quintics(steps, least)
        self.coefficients = (*((a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in first), last)

    def __call__(self, matrices: Tensor) -> Tensor:
        x = divide_by_norm(matrices, SAFETY)
        for quintic in self.coefficients:
            x = apply_quintic(x, *quintic)
        return x


def compute_quintics(steps: int, least: float) -> Iterator[Quintic]:
    """Compute the quintics for singular values from `least` to 1, each for the interval to which the one before maps.

    The later ones approach that of a point, (15/8, -10/8, 3/8).
    """
    low, high = least, 1.0
    for _ in range(steps):
        quintic = _find_quintic(max(low, CUSHION * high), high)
        # With a cushion the ends of the interval itself are not equally far from 1.
        ends = [_evaluate(quintic, each) for each in (low, high)]
        a, b, c = (2 / sum(ends) * each for each in quintic)
        yield a, b, c
        low = _evaluate((a, b, c), low)
        high = 2 - low


def _find_quintic(low: float, high: float) -> Quintic:
    """Find the odd quintic with the smallest largest distance from 1 on an interval, by Remez' exchange."""
    if low / high >= NEARLY_ONE:
        return 15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5
    # The error is largest at both ends and, with alternating signs, at two points between them.
    inner, outer = (3 * low + high) / 4, (low + 3 * high) / 4
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64, device="cpu")
    error = math.inf
    for _ in range(EXCHANGES):
        s = torch.tensor([low, inner, outer, high], dtype=torch.float64, device="cpu")
        system = torch.stack([s, s**3, s**5, signs], dim=1)
        before = error
        a, b, c, error = torch.linalg.solve(system, torch.ones_like(s)).tolist()
        if abs(error - before) <= 1e-15:
            break
        # Extrema: a + 3 b s^2 + 5 c s^4 = 0.
        root = math.sqrt(9 * b**2 - 20 * a * c)
        inner, outer = (math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1))
    return a, b, c


def _evaluate(quintic: Quintic, s: float) -> float:
    a, b, c = quintic
    return a * s + b * s**3 + c * s**5
