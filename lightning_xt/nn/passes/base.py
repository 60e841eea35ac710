"""The contract of passes: runs a whole stack several times with the same weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.nn.norms.base import NormFactory

RunPass = Callable[[Float[Tensor, "b n D"], Trace, int], tuple[Float[Tensor, "b n D"], Trace]]
"""Runs one pass: called with the vectors that the first layer reads, the trace, and the number of the pass, from 0.

Every pass has its own caches, so that a number may be used once a forward."""


class Passes(nn.Module, ABC):
    """Passes of a forward through a stack.

    Args:
        passes: most passes of a forward.
        counted: passes whose auxiliary losses stay in the trace.
    """

    def __init__(self, passes: int, counted: int) -> None:
        super().__init__()
        self.passes, self.counted = passes, counted

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "b n D"], run: RunPass, inputs: Inputs, trace: Trace, cached: bool
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        """Run the passes.

        Args:
            x: embedded tokens.
            run: runs one pass.
            inputs: inputs of the forward besides the tokens.
            trace: empty trace that says what to keep.
            cached: True for a forward with a cache, whose tokens need keys in the cache of every pass.
        """


PassesFactory = Callable[[LayerShape, NormFactory], Passes]
"""Called with the sizes of the stack and the factory of its norms."""
