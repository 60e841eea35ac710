"""Budget of a run: bytes, FLOPs, seconds or steps of training."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from lightning_xt.system.messages import UserError

KINDS = {"bytes": "bytes_per_step", "flops": "flops_per_step", "seconds": "seconds_per_step", "steps": None}
"""Kinds of a budget, each with the measured cost of a step that divides it."""
PREFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
OPTION = "ablate --budget"


@dataclass(frozen=True)
class Budget:
    """Budget of each run.

    Args:
        kind: bytes, flops, seconds or steps.
        amount: how many of them.
        text: the budget as it was given.
    """

    kind: str
    amount: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a budget such as bytes=4M; UserError if it is malformed."""
        match = re.fullmatch(r"(\w+)=(\d+(?:\.\d+)?(?:[eE]\+?\d+)?)([kMGTPE]?)", text)
        if match is None or match[1] not in KINDS:
            raise UserError(
                f"{OPTION} {text} is not a budget; give bytes=4M, flops=3e14, seconds=300 or steps=1000, with k, M, G, "
                "T, P or E for powers of 1,000"
            )
        # As a decimal number, for 2.03 * 1000 is less than 2030.
        amount = float(Decimal(match[2]) * PREFIXES[match[3]])
        if not 0 < amount < math.inf:
            raise UserError(f"{OPTION} {text} pays for no step; give more")
        return cls(match[1], amount, text)

    def count_steps(self, costs: Mapping[str, Any]) -> int:
        """Return the steps that the budget pays for, rounded down.

        Args:
            costs: measured costs of a step.

        Raises:
            UserError: it is less than a step, or the cost of a step is unknown.
        """
        name = KINDS[self.kind]
        cost = 1.0 if name is None else costs.get(name)
        if cost is None:
            raise UserError(
                f"{OPTION} {self.text}: the {self.kind} of a step of this model on these data are not known; give "
                "steps=N or seconds=N"
            )
        if (steps := int(self.amount / cost)) < 1:
            raise UserError(f"{OPTION} {self.text} pays for no step, which takes {cost:,.4g} {self.kind}; give more")
        return steps
