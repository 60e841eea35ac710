"""Sublayer: one branch of the residual stream (read, norm, compute, write)."""

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.base import Mixer
from lightning_xt.nn.feedforward.base import FeedForward
from lightning_xt.nn.placements.base import Placement
from lightning_xt.nn.residuals.base import Residual
from lightning_xt.nn.shifts.base import Shift


class Tokenwise(nn.Module):
    """Adapter from a feedforward to the interface of a mixer."""

    def __init__(self, feedforward: FeedForward) -> None:
        super().__init__()
        self.feedforward = feedforward

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        return self.feedforward(x), trace


class Sublayer(nn.Module):
    """Branch (attention, cross-attention or a feedforward) with its norms, residual connection, shift and dropout."""

    def __init__(
        self, branch: Mixer | Tokenwise, placement: Placement, residual: Residual, shift: Shift | None, dropout: float
    ) -> None:
        super().__init__()
        self.branch, self.placement, self.residual, self.shift = branch, placement, residual, shift
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        stream: Float[Tensor, "b n *s D"],
        where: Where,
        inputs: Inputs,
        trace: Trace,
        cache: CallCache | None,
    ) -> tuple[Float[Tensor, "b n *s D"], Trace]:
        x = self.placement.normalize_input(self.residual.read(stream), inputs)
        if self.shift is not None:
            x = self.shift(x, where, cache)
        out, trace = self.branch(x, where, inputs, trace, cache)
        out = self.dropout(self.placement.normalize_output(out, inputs))
        return self.placement.normalize_stream(self.residual.write(stream, out), inputs), trace
