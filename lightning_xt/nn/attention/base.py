"""The contract of a mixer: moves information between tokens."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.value_mods.base import ValueMod


class Mixer(nn.Module, ABC):
    """Attention, or another part that moves information between tokens."""

    recurrent: ClassVar[bool] = False
    """True for a mixer with a running state: no window limits it, and no token can be taken back from it."""

    @property
    def value_shape(self) -> tuple[int, int] | None:
        """Heads and width of the values that a forward adds to the trace. None = it adds none."""
        return None

    def check_first_values(self, shape: tuple[int, int]) -> None:
        """Raise a ValueError if the first values of the trace, of this shape, cannot be used."""

    @property
    def reads_values(self) -> bool:
        """True if a part reads values that earlier layers add to the trace; by default, if there is a value mod."""
        return any(isinstance(part, ValueMod) for part in self.modules())

    @property
    def shared(self) -> tuple[tuple[str, str], ...]:
        """Parts whose results serve later layers, and options that all layers with such a part must have alike."""
        return ()

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        """Mix the tokens of each row.

        Args:
            x: hidden states of the new tokens.
            where: positions of the tokens, and the mask.
            inputs: inputs of the forward besides the tokens, such as the context of cross-attention.
            trace: results of earlier layers of this forward.
            cache: cache of this call of the layer. None outside decoding.
        """


MixerFactory = Callable[[LayerShape], Mixer]
"""Called with the sizes of the layer."""


def find_recurrences(model: nn.Module) -> list[str]:
    """Return the names of the classes of a model's mixers with a running state."""
    return sorted({type(part).__name__ for part in model.modules() if isinstance(part, Mixer) and part.recurrent})


def check_shared(mixers: Iterable[Mixer]) -> None:
    """Raise a ValueError if layers with a part whose results serve later layers differ in the options it depends on."""
    known: dict[str, str] = {}
    for part, options in (each for mixer in mixers for each in mixer.shared):
        if known.setdefault(part, options) != options:
            name = part.rpartition(" ")[2]
            raise ValueError(
                f"{part} hands results of one layer to later ones, but attention has {known[part]} in one and "
                f"{options} in another; give all layers the same, or omit {name}"
            )
