"""Sublayer: one branch of the residual stream (read, norm, compute, write)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.models.past import Past
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


class BranchSum(nn.Module):
    """Branches that read the same input, and whose outputs are added."""

    def __init__(self, branches: Sequence[Mixer | Tokenwise]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        made = []
        for number, branch in enumerate(self.branches):
            out, trace = branch(x, where, inputs, trace, None if cache is None else cache.branch(str(number)))
            made.append(out)
        return sum(made[1:], start=made[0]), trace


class Sublayer(nn.Module):
    """Branch (attention, cross-attention, a feedforward, or several) with norms, residual, shift, scale and dropout.

    If it is checkpointed, training keeps only its inputs and outputs, and computes what is between again in the
    backward pass.
    """

    def __init__(
        self,
        branch: Mixer | Tokenwise | BranchSum,
        placement: Placement,
        residual: Residual,
        shift: Shift | None,
        scale: Scale | None,
        factor: float,
        dropout: float,
        checkpointed: bool = False,
    ) -> None:
        super().__init__()
        self.factor, self.checkpointed = factor, checkpointed
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
        past: Past | None = None,
    ) -> tuple[Float[Tensor, "b n *s D"], Trace]:
        if not self.checkpointed or cache is not None or not torch.is_grad_enabled():
            return self._compute(stream, where, inputs, trace, cache, links, past)
        # What is computed again begins with the masks that were there before, and leaves none: the numbers of random
        # positions are then drawn again, and a compiled block changes nothing outside it.
        before = where.copy_masks()
        first = [] if torch.compiler.is_compiling() else [where]

        def compute(stream: Tensor, trace: Trace) -> tuple[Tensor, Trace]:
            at = first.pop() if first else before.copy_masks()
            seen = None if past is None else replace(past, where=past.where.copy_masks())
            return self._compute(stream, at, inputs, trace, None, links, seen)

        # Inside the forward, so that hooks that gather the weights of the whole sublayer surround it.
        return cast(tuple[Tensor, Trace], checkpoint(compute, stream, trace, use_reentrant=False))

    def close(self, stream: Float[Tensor, "b n *s D"]) -> Float[Tensor, "b n D"]:
        """Return the output of a network whose last sublayer this is; its weights are gathered as in a forward."""
        return self.residual.close(stream)

    def _compute(
        self,
        stream: Float[Tensor, "b n *s D"],
        where: Where,
        inputs: Inputs,
        trace: Trace,
        cache: CallCache | None,
        links: Iterable[Link],
        past: Past | None,
    ) -> tuple[Float[Tensor, "b n *s D"], Trace]:
        stream = extend_stream(stream, links, trace)
        x = self.residual.read(stream)
        earlier, trace = trace, trace.add_hidden(x)
        x = mix_input(x, links, earlier)
        if past is None:
            out, trace = self._mix(x, where, inputs, trace, cache)
        else:
            out, trace = self._mix(past.prepend(x), past.where, past.inputs, trace.add_read(x), cache)
            out = out[:, out.shape[1] - x.shape[1] :]
        out = self.placement.normalize_output(out, inputs)
        if self.scale is not None:
            out = self.scale(out, inputs)
        if self.factor != 1:
            out = self.factor * out
        out = self.dropout(out)
        return self.placement.normalize_stream(self.residual.write_rows(stream, out, where), inputs), trace

    def _mix(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        """Norm the vectors that are read, and compute the branch."""
        x = self.placement.normalize_input(x, inputs)
        if self.shift is not None:
            x = self.shift(x, where, cache)
        made: tuple[Tensor, Trace] = self.branch(x, where, inputs, trace, cache)
        return made


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
