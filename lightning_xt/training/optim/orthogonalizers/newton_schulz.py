from torch import Tensor

from lightning_xt.system.option_checks import check_option
from lightning_xt.training.optim.orthogonalizers.base import Orthogonalizer, apply_quintic, divide_by_norm

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic: small singular values grow fastest, the others stay between about 0.7 and 1.2."""


class NewtonSchulz(Orthogonalizer):
    """Newton-Schulz iterations of one quintic polynomial.

    Jordan et al., 2024. https://kellerjordan.github.io/posts/muon/

    Args:
        steps: iterations, in three products each.
    """

    def __init__(self, steps: int = 5) -> None:
        # More iterations cost time and change nothing.
        check_option("optimizer: NewtonSchulz", "steps", steps, least=1, below=100)
        self.steps = steps

    def __call__(self, matrices: Tensor) -> Tensor:
        x = divide_by_norm(matrices)
        for _ in range(self.steps):
            x = apply_quintic(x, *COEFFICIENTS)
        return x
