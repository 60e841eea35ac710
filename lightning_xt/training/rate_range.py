"""Learning rate range test: rates that rise by a factor each step, and what the losses say about them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST = 20
"""Fewest steps from which a rate can be suggested."""


@dataclass(frozen=True)
class RateRange:
    """Result of a range test.

    Args:
        rates: learning rate of each step, rising.
        losses: training loss of each step, finite.
        smoothed: mean of the losses around each step.
        steepest: rate at which the smoothed loss fell fastest, by the logarithm of the rate.
        minimum: rate of the least smoothed loss.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    steepest: float
    minimum: float

    @property
    def suggestion(self) -> float:
        """Rate to train with: the lower one of both usual rules, the steepest fall and a tenth of the minimum's."""
        return min(self.steepest, self.minimum / 10)


def space_rates(lowest: float, highest: float, steps: int) -> list[float]:
    """Return rates from the lowest to the highest with equal factors between them; ValueError if there are none."""
    if not 0 < lowest < highest < math.inf:
        raise ValueError(f"--lowest {lowest:g} and --highest {highest:g} must be above 0, and the second the larger")
    if steps < FEWEST:
        raise ValueError(f"--steps is {steps}; it must be at least {FEWEST} optimizer steps")
    return [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]


def has_diverged(losses: Sequence[float]) -> bool:
    """Return True if the last losses are not finite, far above the first ones, or far above the best ones."""
    if losses and not math.isfinite(losses[-1]):
        return True
    if len(losses) < FEWEST:
        return False
    means = [sum(losses[at : at + 5]) / 5 for at in range(len(losses) - 4)]
    return means[-1] > min(1.25 * means[0], 3 * min(means))


def find_rate(rates: Sequence[float], losses: Sequence[float], planned: int) -> RateRange:
    """Find the rates at which the loss fell fastest and lay lowest.

    Args:
        rates: of the steps that were taken.
        losses: of the same steps.
        planned: steps that the whole range has, over which losses are smoothed.

    Raises:
        ValueError: the losses diverged too soon, or did not fall.
    """
    kept = [loss for loss in losses if math.isfinite(loss)]
    if len(kept) < FEWEST:
        raise ValueError(
            f"the loss diverged after {len(kept)} steps, at the learning rate {rates[len(kept) - 1]:.2g}, which is too "
            "soon to suggest one; begin lower: --lowest"
        )
    smoothed = _smooth(kept, max(2, planned // 20))
    least = min(range(len(smoothed)), key=smoothed.__getitem__)
    if least < 3 or smoothed[0] - smoothed[least] < 0.01 * abs(smoothed[0]):
        raise ValueError(
            f"the loss did not fall between the learning rates {rates[0]:.2g} and {rates[len(kept) - 1]:.2g}; choose "
            "others by --lowest and --highest, or more --steps"
        )
    slopes = {at: smoothed[at + 1] - smoothed[at - 1] for at in range(1, least)}
    steepest = min(slopes, key=slopes.__getitem__)
    return RateRange(tuple(rates[: len(kept)]), tuple(kept), tuple(smoothed), rates[steepest], rates[least])


def _smooth(values: Sequence[float], reach: int) -> list[float]:
    """Return the means of the values around each, near ones weighing more."""
    found = []
    for at in range(len(values)):
        # As many before as after, so that the ends are not shifted.
        near = min(reach, at, len(values) - 1 - at)
        weights = {at + by: near + 1 - abs(by) for by in range(-near, near + 1)}
        found.append(sum(weight * values[each] for each, weight in weights.items()) / sum(weights.values()))
    return found
