"""Sublayer: one branch of the residual stream (read, norm, compute, write)."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.base import Mixer
from lightning_xt.nn.feedforward.base import FeedForward
from lightning_xt.nn.links.base import Link
from lightning_xt.nn.placements.base import Placement
from lightning_xt.nn.residuals.base import Residual
from lightning_xt.nn.scales.base import Scale
from lightning_xt.nn.shifts.base import Shift


class Tokenwise(nn.Module):
    """Adapter from a feedforward to the interface of a mixer."""

    def __init__(self, feedforward: FeedForward) -> None:
        super().__init__()
        self.feedforward = feedforward

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        return self.feedforward.transform(x, where, inputs, trace)


class Sublayer(nn.Module):
    """Branch (attention, cross-attention or a feedforward) with its norms, residual, shift, scale and dropout."""

    def __init__(
        self,
        branch: Mixer | Tokenwise,
        placement: Placement,
        residual: Residual,
        shift: Shift | None,
        scale: Scale | None,
        factor: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.factor = factor
        self.branch, self.placement, self.residual, self.shift, self.scale = branch, placement, residual, shift, scale
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        stream: Float[Tensor, "b n *s D"],
        where: Where,
        inputs: Inputs,
        trace: Trace,
        cache: CallCache | None,
        links: Iterable[Link] = (),
    ) -> tuple[Float[Tensor, "b n *s D"], Trace]:
        stream = extend_stream(stream, links, trace)
        x = self.residual.read(stream)
        earlier, trace = trace, trace.add_hidden(x)
        x = self.placement.normalize_input(mix_input(x, links, earlier), inputs)
        if self.shift is not None:
            x = self.shift(x, where, cache)
        out, trace = self.branch(x, where, inputs, trace, cache)
        out = self.placement.normalize_output(out, inputs)
        if self.scale is not None:
            out = self.scale(out, inputs)
        if self.factor != 1:
            out = self.factor * out
        out = self.dropout(out)
        return self.placement.normalize_stream(self.residual.write_rows(stream, out, where), inputs), trace


def extend_stream(stream: Float[Tensor, "b n *s D"], links: Iterable[Link], trace: Trace) -> Float[Tensor, "b n *s D"]:
    """Let the links of a call change the stream, in order."""
    for link in links:
        stream = link.extend_stream(stream, trace.hidden or ())
    return stream


def mix_input(x: Float[Tensor, "b n D"], links: Iterable[Link], trace: Trace) -> Float[Tensor, "b n D"]:
    """Let the links of a call change the vectors that it has read, in order."""
    for link in links:
        x = link.mix_input(x, trace.hidden or ())
    return x
