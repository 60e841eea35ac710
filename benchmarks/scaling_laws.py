"""Fits of losses by power laws in parameters and in bytes, with bootstrap intervals.

The law is L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al., 2022, https://arxiv.org/abs/2203.15556), fitted to
logarithms of losses by the Huber loss from several starts. Every fit of every resample is a row of one batch, which
Levenberg and Marquardt's method minimizes; the Huber loss weighs the squares of each step.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

DELTA = 1e-3
"""Error of a logarithm from which on the Huber loss grows in proportion, as in the paper."""
LEVEL = 0.95
"""Fraction of the resamples within an interval."""
LEAST = 3
"""Different sizes, and different budgets, that a fit and each resample need."""
ITERATIONS = 300
STEEPEST = 3.0
"""Largest exponent that a fit tries; the least is 0."""


class Point(NamedTuple):
    """Loss in nats after training a number of parameters on a number of bytes."""

    parameters: float
    budget: float
    loss: float


@dataclass(frozen=True)
class Law:
    """Loss of N parameters after D bytes: E + A / N^alpha + B / D^beta."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def predict(self, parameters: float, budget: float) -> float:
        """Return the loss in nats."""
        return self.E + self.A / parameters**self.alpha + self.B / budget**self.beta


class Grid:
    """Logarithms of points, with their means subtracted, so that factors and exponents hardly depend on each other."""

    def __init__(self, points: Sequence[Point]) -> None:
        logs = torch.tensor(points, dtype=torch.float64).log()
        self.means = logs[:, :2].mean(dim=0)
        self.sizes, self.budgets = (logs[:, :2] - self.means).unbind(dim=1)
        self.losses = logs[:, 2]

    def terms(self, values: Tensor) -> Tensor:
        """Return the logarithms of the three terms, (k, n, 3), by values (k, 5): log E, log A, alpha, log B, beta."""
        e, a, alpha, b, beta = (values[:, number, None] for number in range(5))
        return torch.stack(torch.broadcast_tensors(e, a - alpha * self.sizes, b - beta * self.budgets), dim=-1)

    def objective(self, values: Tensor, weights: Tensor) -> Tensor:
        """Return the Huber loss, (k,), summed over the points with their weights, (k, n)."""
        errors = (self.terms(values).logsumexp(dim=-1) - self.losses).abs()
        return (weights * torch.where(errors < DELTA, errors.square() / 2, DELTA * (errors - DELTA / 2))).sum(dim=-1)

    def starts(self) -> Tensor:
        """Return values to begin with, (k, 5)."""
        least, mean = self.losses.min().exp(), self.losses.mean().exp()
        found = []
        for fraction, alpha, beta in product((0.5, 0.95), (0.2, 0.8), (0.2, 0.8)):
            rest = ((mean - fraction * least) / 2).log()
            found.append(torch.stack([(fraction * least).log(), rest, torch.tensor(alpha), rest, torch.tensor(beta)]))
        return torch.stack(found).to(torch.float64)

    def law(self, values: Tensor) -> Law:
        """Return the law of values (5,)."""
        e, a, alpha, b, beta = values.tolist()
        x, y = self.means.tolist()
        return Law(math.exp(e), math.exp(a + alpha * x), alpha, math.exp(b + beta * y), beta)


def fit_law(points: Sequence[Point]) -> Law:
    """Return the law that fits the points best; ValueError for fewer than three sizes or three budgets."""
    check_grid(points)
    grid = Grid(points)
    weights = torch.ones(1, len(points), dtype=torch.float64)
    return grid.law(_fit_best(grid, grid.starts(), weights)[0])


def bootstrap_laws(points: Sequence[Point], resamples: int, seed: int) -> list[Law]:
    """Return the laws of resamples of the points, drawn with replacement; each has at least three sizes and budgets."""
    check_grid(points)
    grid, weights = Grid(points), draw_resamples(points, resamples, seed)
    whole = _fit_best(grid, grid.starts(), torch.ones(1, len(points), dtype=torch.float64))
    return [grid.law(values) for values in _fit_best(grid, torch.cat([whole, grid.starts()]), weights)]


def draw_resamples(points: Sequence[Point], resamples: int, seed: int) -> Tensor:
    """Draw the number of times, (resamples, n), that each point is in each resample."""
    generator = torch.Generator().manual_seed(seed)
    count, found = len(points), torch.zeros(0, len(points), dtype=torch.float64)
    kinds = [_one_hot([point[axis] for point in points]) for axis in range(2)]
    while len(found) < resamples:
        drawn = torch.randint(count, (resamples, count), generator=generator)
        weights = torch.zeros(resamples, count, dtype=torch.float64)
        weights.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        enough = [((weights @ kind) > 0).sum(dim=1) >= LEAST for kind in kinds]
        found = torch.cat([found, weights[enough[0] & enough[1]]])
    return found[:resamples]


def fit_exponents(points: Sequence[Point], axis: int, weights: Tensor) -> Tensor:
    """Fit plain power laws along an axis, 0 for parameters and 1 for bytes: loss = C / x^exponent.

    The exponent is the same for all values of the other axis, each of which has its own factor C.

    Args:
        points: of the grid.
        axis: number of the axis.
        weights: (k, n), of the points in each fit.

    Returns:
        (k,), exponents.
    """
    logs = torch.tensor(points, dtype=torch.float64).log()
    group = _one_hot([point[1 - axis] for point in points])
    sums = (weights @ group).clamp(min=1e-300)
    x, y = (each - ((weights * each) @ group / sums) @ group.mT for each in (logs[:, axis], logs[:, 2]))
    return -(weights * x * y).sum(dim=-1) / (weights * x * x).sum(dim=-1)


def describe_interval(values: Sequence[float]) -> list[float]:
    """Return the ends of the interval that holds the middle of the values."""
    found = torch.tensor(values, dtype=torch.float64)
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    return [float(f"{end:.4g}") for end in found.nanquantile(ends).tolist()]


def summarize(points: Sequence[Point], resamples: int, seed: int) -> tuple[Law, list[Law], dict[str, dict[str, Any]]]:
    """Return the law, those of the resamples, and the rows of the law and of the plain power laws."""
    law, laws = fit_law(points), bootstrap_laws(points, resamples, seed)
    errors = [point.loss / law.predict(point.parameters, point.budget) - 1 for point in points]
    about = {"points": len(points), "resamples": resamples, "seed": seed, "level": LEVEL}
    rows: dict[str, dict[str, Any]] = {
        "law": {
            **{name: float(f"{value:.5g}") for name, value in asdict(law).items()},
            "intervals": {name: describe_interval([getattr(each, name) for each in laws]) for name in asdict(law)},
            "unit": "nats a byte = E + A / parameters^alpha + B / bytes^beta",
            "largest_error": round(max(errors, key=abs), 4),
            **about,
        }
    }
    drawn = draw_resamples(points, resamples, seed)
    for axis, name in enumerate(("parameters", "bytes")):
        found = fit_exponents(points, axis, torch.ones(1, len(points), dtype=torch.float64))
        rows[f"power_law_{name}"] = {
            "value": round(float(found), 4),
            "interval": describe_interval(fit_exponents(points, axis, drawn).tolist()),
            "unit": f"exponent of {name}, the same at all values of the other",
            **about,
        }
    return law, laws, rows


def check_grid(points: Sequence[Point]) -> None:
    """Raise a ValueError for a grid with too few sizes or budgets."""
    for axis, name in enumerate(("sizes", "budgets")):
        found = {point[axis] for point in points}
        if len(found) < LEAST:
            raise ValueError(
                f"the grid has {len(found)} different {name}, but an exponent and a limit need at least {LEAST}; add "
                f"{name}"
            )


def _one_hot(values: Sequence[float]) -> Tensor:
    """Return (n, groups), 1 where a point has the value of a group."""
    kinds = sorted(set(values))
    return torch.tensor([[float(value == kind) for kind in kinds] for value in values], dtype=torch.float64)


def _fit_best(grid: Grid, starts: Tensor, weights: Tensor) -> Tensor:
    """Return the best values, (k, 5), for each row of weights, (k, n), over all starts."""
    fits, count = len(weights), len(starts)
    weights = weights.repeat_interleave(count, dim=0)
    values = _minimize(grid, starts.repeat(fits, 1), weights)
    best = grid.objective(values, weights).view(fits, count).argmin(dim=1)
    return values.view(fits, count, 5)[torch.arange(fits), best]


def _minimize(grid: Grid, values: Tensor, weights: Tensor) -> Tensor:
    """Minimize the Huber loss from each row of values, (k, 5)."""
    damping = torch.full((len(values), 1), 1e-2, dtype=torch.float64)
    loss, identity = grid.objective(values, weights), torch.eye(5, dtype=torch.float64)
    for _ in range(ITERATIONS):
        terms = grid.terms(values)
        errors = terms.logsumexp(dim=-1) - grid.losses
        e, a, b = terms.softmax(dim=-1).unbind(dim=-1)
        slopes = torch.stack([e, a, -a * grid.sizes, b, -b * grid.budgets], dim=-1)
        weighed = slopes * (weights * DELTA / errors.abs().clamp(min=DELTA))[..., None]
        curvature, gradient = weighed.mT @ slopes, (weighed.mT @ errors[..., None]).squeeze(-1)
        # A limit or a term of 0 has no slope: the identity keeps its row solvable.
        diagonal = curvature.diagonal(dim1=-2, dim2=-1) * damping + 1e-12
        step = torch.linalg.solve(curvature + diagonal[..., None] * identity, gradient)
        moved = values - step.clamp(-2, 2)
        # e^-20 nats count as 0.
        moved[:, 0].clamp_(min=-20)
        moved[:, 2::2].clamp_(0, STEEPEST)
        found = grid.objective(moved, weights)
        better = found <= loss
        values, loss = torch.where(better[:, None], moved, values), torch.where(better, found, loss)
        damping = torch.where(better[:, None], damping / 3, damping * 5).clamp(1e-12, 1e8)
    return values
