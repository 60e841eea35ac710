"""The contract of a recurrence: a mixer that carries a state of fixed size from token to token."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_xt.core.autocast import disable_autocast
from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.base import Mixer
from lightning_xt.nn.attention.part_checks import refuse_visible_prefix
from lightning_xt.nn.mixers.chunked_rule import run_rule


@dataclass(frozen=True, eq=False)
class Carry:
    """Limits and cache of a state in a forward.

    Args:
        real: True for tokens that change the state; padding and hidden tokens do not. None = all.
        documents: document of each token, in ascending order; each begins with an empty state. None = one a row.
        cache: cache of this call. None outside decoding.
    """

    real: Bool[Tensor, "#b n"] | None
    documents: Int[Tensor, "b n"] | None
    cache: CallCache | None

    def mask(self, x: Float[Tensor, "b n *_"]) -> Float[Tensor, "b n *_"]:
        """Replace the features of tokens that do not change the state by 0."""
        if self.real is None:
            return x
        return x.masked_fill(~self.real.view(*self.real.shape, *[1] * (x.dim() - 2)), 0.0)


class Recurrence(Mixer):
    """Mixer with a running state, in float32 or better, instead of keys and values of all tokens."""

    recurrent: ClassVar = True
    chunk: int | None = None
    """Tokens computed at once. None = by the device."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        if not shape.causal or shape.context_dim is not None:
            raise ValueError(
                f"attention: {type(self).__name__} carries a state forward, so it serves causal self-attention only; "
                "choose another"
            )
        self.layer = shape.layer

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        self._check_inputs(inputs)
        real = where.valid if cache is None else cache.extent.real
        return self.mix(x, Carry(real, where.query_documents, cache)), trace

    def _check_inputs(self, inputs: Inputs) -> None:
        """Raise a ValueError for inputs about pairs of tokens, which a recurrence does not have."""
        name = type(self).__name__
        if inputs.visible_prefix is not None:
            refuse_visible_prefix("attention", name)
        layers = () if inputs.keys_values is None else inputs.keys_values[self.layer : self.layer + 1]
        given = {"mask": inputs.mask, "bias": inputs.bias, "keys_values": next(iter(layers), None)}
        for field in (field for field, value in given.items() if value is not None):
            raise ValueError(
                f"attention: {name} has no scores of pairs of tokens, which Inputs({field}=...) is about; choose "
                f"another mixer, or omit {field}"
            )

    @abstractmethod
    def mix(self, x: Float[Tensor, "b n D"], carry: Carry) -> Float[Tensor, "b n D"]:
        """Mix the tokens of each row; those that are not real leave the state alone."""


def choose_chunk(chunk: int | None, device: str) -> int:
    """Choose the number of tokens computed at once: that of the option, else by the device."""
    # A device that computes in parallel waits less for fewer chunks.
    return chunk or (32 if device == "cpu" else 64)


def carry_rule(
    q: Float[Tensor, "b g #r n d"],
    k: Float[Tensor, "b g #r n d"],
    v: Float[Tensor, "b g r n e"],
    log_decay: Float[Tensor, "b g r n"],
    beta: Float[Tensor, "b g r n"] | None,
    carry: Carry,
    chunk: int | None,
) -> Float[Tensor, "b g r n e"]:
    """Run a rule from the cached state, and cache the new one; see `run_rule`."""
    cache = carry.cache
    state = None if cache is None else cache.running.get("state")
    chunk = choose_chunk(chunk, v.device.type)
    with disable_autocast(v):
        out, state = run_rule(q, k, v, log_decay, beta, state, carry.documents, chunk)
    if cache is not None:
        cache.set_running("state", state)
    return out
