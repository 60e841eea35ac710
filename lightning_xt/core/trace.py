"""Results of layers for later layers of the same forward, for the loss, and for the caller."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.core.memories import Memories
from lightning_xt.core.where import Where


class AuxiliaryLoss(NamedTuple):
    """Term that a part adds to the loss in training.

    Args:
        name: name in the logs.
        value: the term, a mean over tokens.
        weight: factor of the term in the loss.
        group: calls over which the stack takes the mean of their terms. None = the term is added as it is.
    """

    name: str
    value: Float[Tensor, ""]
    weight: float | Tensor
    group: str | None = None


class AttentionMap(NamedTuple):
    """One call of attention, kept for the caller.

    Args:
        kind: self-attention, or attention to a context.
        layer: index of the layer.
        keys: keys in their cached form, persistent ones first.
        values: values in their cached form.
        scores: scores after the score mods and the bias, hidden pairs included.
        weights: weights of the keys, 0 for hidden pairs.
        mask: True for visible pairs.
        persistent: number of keys before all others that are not tokens: learned ones, and those of another model.
    """

    kind: Literal["attention", "cross_attention"]
    layer: int
    keys: Float[Tensor, "b g j _"]
    values: Float[Tensor, "b g j _"]
    scores: Float[Tensor, "b h i j"]
    weights: Float[Tensor, "b h i j"]
    mask: Bool[Tensor, "#b #h i j"]
    persistent: int = 0


class SharedKeys(NamedTuple):
    """Keys and values of one layer that later ones read.

    Args:
        keys: keys in their cached form, earlier ones included.
        values: their values.
        where: positions and mask of the keys.
        window: window of the layer.
    """

    keys: Float[Tensor, "b g j _"]
    values: Float[Tensor, "b g j _"]
    where: Where
    window: int | None


@dataclass(frozen=True)
class Trace:
    """Immutable record of a forward, replaced rather than changed, so that checkpointing can run a layer twice.

    A caller who wants to see inside a forward hands in an empty one that says what to keep.

    Args:
        keeps_hidden: True to keep the input that each sublayer reads from the stream.
        keeps_values: False to keep no values, because no later layer reads them; a stack sets it.
        keeps_maps: True to keep keys, values, scores and weights of each attention, in plain products.
        values: values that each self-attention call projected (latents with Latent), before any value mod, in order.
        context_values: values that each cross-attention call projected.
        scores: scores of each self-attention call whose score mods record them, before the bias of positions.
        context_scores: scores of each cross-attention call likewise.
        hidden: vectors that each sublayer call read from the stream, before links and norms. None = not recorded.
        shared: values of parameters that one layer owns and later layers read, by name.
        drawn: random choices of training that hold for all layers, passes and segments of a forward, by name.
        losses: terms for the loss.
        maps: calls of attention, in order.
        states: hidden states that the head reads; None before the end of the forward.
        source: trace of the encoder, in that of an encoder-decoder.
        shared_keys: keys and values of the last layer that shares its own. None = there is none.
        exits: hidden states after each pass through the stack, of parts that can leave it earlier.
        reads: vectors of the first layer, then those that each self-attention read from the stream, then those of the
            output, all before their norm. None = not recorded.
        memories: memories for the next segment. None without segments.
    """

    keeps_hidden: bool = False
    keeps_maps: bool = False
    keeps_values: bool = True
    values: tuple[Float[Tensor, "b _ n _"], ...] = ()
    context_values: tuple[Float[Tensor, "b _ m _"], ...] = ()
    scores: tuple[Float[Tensor, "b h i j"], ...] = ()
    context_scores: tuple[Float[Tensor, "_ h _ m"], ...] = ()
    hidden: tuple[Float[Tensor, "b _ D"], ...] | None = None
    shared: Mapping[str, Tensor] = field(default_factory=dict)
    drawn: Mapping[str, Tensor] = field(default_factory=dict)
    losses: tuple[AuxiliaryLoss, ...] = ()
    maps: tuple[AttentionMap, ...] = ()
    states: Float[Tensor, "b _ D"] | None = None
    source: "Trace | None" = None
    shared_keys: SharedKeys | None = None
    exits: tuple[Float[Tensor, "b _ D"], ...] = ()
    reads: tuple[Float[Tensor, "b _ D"], ...] | None = None
    memories: Memories | None = None

    def share_keys(self, shared: SharedKeys) -> "Trace":
        """Let later layers read the keys and values of this one."""
        return replace(self, shared_keys=shared)

    def add_read(self, x: Tensor) -> "Trace":
        """Append vectors that are read from the stream, if they are recorded."""
        return self if self.reads is None else replace(self, reads=(*self.reads, x))

    def add_values(self, v: Tensor) -> "Trace":
        """Append the values of a self-attention call, if they are kept."""
        return replace(self, values=(*self.values, v)) if self.keeps_values else self

    def add_context_values(self, v: Tensor) -> "Trace":
        """Append the values of a cross-attention call, if they are kept."""
        return replace(self, context_values=(*self.context_values, v)) if self.keeps_values else self

    def add_scores(self, scores: Tensor) -> "Trace":
        """Append the scores of a self-attention call."""
        return replace(self, scores=(*self.scores, scores))

    def add_context_scores(self, scores: Tensor) -> "Trace":
        """Append the scores of a cross-attention call."""
        return replace(self, context_scores=(*self.context_scores, scores))

    def add_hidden(self, x: Tensor) -> "Trace":
        """Append the vectors that a sublayer call read, if they are recorded."""
        if self.hidden is None and not self.keeps_hidden:
            return self
        return replace(self, hidden=(*(self.hidden or ()), x))

    def share(self, name: str, value: Tensor) -> "Trace":
        """Leave a value for the same part of later layers."""
        return replace(self, shared={**self.shared, name: value})

    def keep_drawn(self, name: str, value: Tensor) -> "Trace":
        """Keep a random choice for all later layers of the forward."""
        return replace(self, drawn={**self.drawn, name: value})

    def add_loss(self, name: str, value: Tensor, weight: float, group: str | None = None) -> "Trace":
        """Append a term for the loss."""
        return replace(self, losses=(*self.losses, AuxiliaryLoss(name, value, weight, group)))

    def average_groups(self) -> "Trace":
        """Divide the weights of terms by the number of terms in their group."""
        groups = [each.group for each in self.losses]
        if not any(groups):
            return self
        shared = (
            each if each.group is None else each._replace(weight=each.weight / groups.count(each.group), group=None)
            for each in self.losses
        )
        return replace(self, losses=tuple(shared))

    def add_map(self, made: AttentionMap) -> "Trace":
        """Append a call of attention."""
        return replace(self, maps=(*self.maps, made))

    def begin_pass(self) -> "Trace":
        """Drop what layers of one pass leave to later layers of the same pass."""
        return replace(
            self,
            values=(),
            context_values=(),
            scores=(),
            context_scores=(),
            hidden=None,
            shared={},
            shared_keys=None,
            reads=None if self.reads is None else (),
        )

    def add_exit(self, states: Tensor) -> "Trace":
        """Append the hidden states after a pass."""
        return replace(self, exits=(*self.exits, states))

    def change_exits(self, change: Callable[[Tensor], Tensor]) -> "Trace":
        """Change the hidden states after each pass."""
        return replace(self, exits=tuple(map(change, self.exits))) if self.exits else self

    def finish(self, states: Tensor) -> "Trace":
        """Set the hidden states, and drop what only layers read."""
        hidden = self.hidden if self.keeps_hidden else None
        return replace(self.begin_pass(), reads=None, hidden=hidden, states=states)

    def sum_losses(self) -> dict[str, Tensor]:
        """Sum the weighted terms by name, those of the encoder included."""
        found: dict[str, Tensor] = {} if self.source is None else self.source.sum_losses()
        for name, value, weight, _ in self.losses:
            found[name] = weight * value + found[name] if name in found else weight * value
        return found
