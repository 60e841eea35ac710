"""Stack: sublayers in the order of a layout."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.models.past import Past
from lightning_xt.models.segmented_cache import SegmentedCache
from lightning_xt.models.sublayer import BranchSum, Sublayer, Tokenwise, extend_stream, mix_input
from lightning_xt.nn.attention.base import Mixer, MixerFactory, check_shared
from lightning_xt.nn.feedforward.base import FeedForwardFactory
from lightning_xt.nn.layouts.base import Kind, LayoutFactory, Step
from lightning_xt.nn.links.base import Link, LinkFactory
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.passes.base import PassesFactory
from lightning_xt.nn.placements.base import PlacementFactory
from lightning_xt.nn.residuals.base import ResidualFactory
from lightning_xt.nn.scales.base import ScaleFactory
from lightning_xt.nn.shifts.base import ShiftFactory


class Stack(nn.Module):
    """Layers of a decoder or an encoder, from embedded tokens to hidden states.

    The factories and the dropout are the options of `Decoder`. `shape` holds the stream's width, the depth, whether it
    is causal, and the context's width. Without a cross_attention there is no such sublayer. Of `checkpoint_layers`
    layers, from the first, or of all if it is true, training keeps inputs and outputs only.
    """

    def __init__(
        self,
        shape: LayerShape,
        *,
        attention: MixerFactory,
        cross_attention: MixerFactory | None,
        feedforward: FeedForwardFactory,
        norm: NormFactory,
        placement: PlacementFactory,
        residual: ResidualFactory,
        shift: ShiftFactory | None,
        scale: ScaleFactory | None,
        links: Sequence[LinkFactory],
        layout: LayoutFactory,
        dropout: float,
        passes: PassesFactory | None = None,
        checkpoint_layers: bool | int = False,
    ) -> None:
        super().__init__()
        kinds: list[Kind] = ["attention", "feedforward"]
        if cross_attention is not None:
            kinds.insert(1, "cross_attention")
        self.dim = shape.dim
        order = layout(shape.depth)
        self.steps = tuple(order.list_steps(kinds))

        self.attention_calls = [
            call for call, step in enumerate(self.steps) if "attention" in (step.kind, *step.beside)
        ]

        depth = 1 + max(step.layer for step in self.steps)
        checkpointed = _count_checkpointed(checkpoint_layers, depth)
        self.passes = None if passes is None else passes(replace(shape, context_dim=None), norm)
        repeats = len(self.steps) // len(set(self.steps)) * (1 if self.passes is None else self.passes.counted)
        shape = replace(shape, depth=depth, calls=repeats)
        own = replace(shape, context_dim=None)
        branches = _BranchBuilder(attention, cross_attention, feedforward, shape.context_dim)

        self.sublayers = nn.ModuleDict()
        for step in dict.fromkeys(self.steps):
            at = replace(own, layer=step.layer, kind=step.kind)
            self.sublayers[step.name] = Sublayer(
                branches.build(at, step),
                placement(at, norm),
                residual(at, len(self.sublayers)),
                None if shift is None else shift(at),
                None if scale is None else scale(at),
                order.get_factor(step.kind),
                dropout,
                step.layer < checkpointed,
            )
        self.links = _build_links(own, self.steps, links)
        branches.check_values()
        self.keeps_values = any(each.reads_values for mixers in branches.mixers.values() for each in mixers)
        first = self._get_sublayer(self.steps[0])
        self.embedding_norm = norm(own) if first.placement.norms_embeddings else None
        self.output_norm = norm(own) if first.placement.norms_output else None

    def forward(
        self,
        x: Float[Tensor, "b n D"],
        where: Where,
        inputs: Inputs,
        trace: Trace,
        cache: Cache | SegmentedCache | None,
        past: Past | None = None,
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        trace = replace(trace, keeps_values=self.keeps_values)

        def run(x: Tensor, trace: Trace, number: int) -> tuple[Tensor, Trace]:
            return self._run_pass(x, where, inputs, trace, cache, past, number)

        x, trace = run(x, trace, 0) if self.passes is None else self.passes(x, run, inputs, trace, cache is not None)
        return x, trace.average_groups()

    def _run_pass(
        self,
        x: Float[Tensor, "b n D"],
        where: Where,
        inputs: Inputs,
        trace: Trace,
        cache: Cache | SegmentedCache | None,
        past: Past | None,
        number: int,
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        """Run all steps once; each pass has its own caches."""
        if self.embedding_norm is not None:
            x = self.embedding_norm(x, inputs)
        inputs, trace = replace(inputs, embedded=x), trace.add_read(x)
        past = None if past is None else past.add_embedded(x)
        stream = self._get_sublayer(self.steps[0]).residual.open(x)
        if len(self.links):
            trace = replace(trace, hidden=())
        for call, step in enumerate(self.steps):
            state = None if cache is None else cache[number * len(self.steps) + call]
            seen = None if past is None or call not in self.attention_calls else past.choose_call(call)
            stream, trace = self._get_sublayer(step)(stream, where, inputs, trace, state, self._get_links(call), seen)
        links = self._get_links(len(self.steps))
        x = self._get_sublayer(self.steps[-1]).close(extend_stream(stream, links, trace))
        x = mix_input(x, links, trace)
        trace = trace.add_read(x)
        return x if self.output_norm is None else self.output_norm(x, inputs), trace

    @property
    def calls(self) -> int:
        """Number of calls of sublayers in a forward, each of which has a cache."""
        return len(self.steps) * (1 if self.passes is None else self.passes.passes)

    @property
    def writes(self) -> int:
        """Number of branches whose outputs a pass adds to the stream."""
        return sum(1 + len(step.beside) for step in self.steps)

    def _get_sublayer(self, step: Step) -> Sublayer:
        # A ModuleDict does not know the type of its modules.
        return cast(Sublayer, self.sublayers[step.name])

    def _get_links(self, call: int) -> Iterable[Link]:
        return cast(Iterable[Link], self.links[call]) if len(self.links) else ()


def _build_links(shape: LayerShape, steps: Sequence[Step], links: Sequence[LinkFactory]) -> nn.ModuleList:
    """Build the links of each call and of the output; an empty list if there are none."""
    if not links:
        return nn.ModuleList()
    calls = len(steps)
    shapes = [replace(shape, layer=step.layer, kind=step.kind) for step in (*steps, steps[-1])]
    return nn.ModuleList(nn.ModuleList(link(at, index, calls) for link in links) for index, at in enumerate(shapes))


def _count_checkpointed(layers: bool | int, depth: int) -> int:
    """Return the number of layers, from the first, that are computed again in the backward pass."""
    if isinstance(layers, bool):
        return depth if layers else 0
    if not 0 <= layers <= depth:
        raise ValueError(
            f"checkpoint_layers is {layers}; it must be true, false or a number of layers from 0 to the depth, {depth}"
        )
    return layers


class _BranchBuilder:
    """Builder of the branches of sublayers, in the order of their first calls."""

    def __init__(
        self,
        attention: MixerFactory,
        cross_attention: MixerFactory | None,
        feedforward: FeedForwardFactory,
        context_dim: int | None,
    ) -> None:
        self.attention, self.cross_attention, self.feedforward = attention, cross_attention, feedforward
        self.context_dim = context_dim
        self.mixers: dict[Kind, list[Mixer]] = {"attention": [], "cross_attention": []}

    def build(self, at: LayerShape, step: Step) -> Mixer | Tokenwise | BranchSum:
        """Build the branch, or the branches, of a step."""
        made = [self._build_one(replace(at, kind=kind)) for kind in (step.kind, *step.beside)]
        return made[0] if len(made) == 1 else BranchSum(made)

    def check_values(self) -> None:
        """Raise a ValueError if a mixer cannot use the values of the first of its kind, or the scores of another."""
        for mixers in self.mixers.values():
            shapes = [each.value_shape for each in mixers if each.value_shape is not None]
            for each in mixers if shapes else ():
                each.check_first_values(shapes[0])
            check_shared(mixers)

    def _build_one(self, at: LayerShape) -> Mixer | Tokenwise:
        if at.kind == "feedforward":
            return Tokenwise(self.feedforward(at))
        earlier = self.mixers[at.kind]
        at = replace(at, earlier_values=any(each.value_shape is not None for each in earlier))
        if at.kind == "cross_attention" and self.cross_attention is not None:
            mixer = self.cross_attention(replace(at, causal=False, context_dim=self.context_dim))
        else:
            mixer = self.attention(at)
        earlier.append(mixer)
        return mixer
