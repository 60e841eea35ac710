"""The contract of a mixer: moves information between tokens."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.value_mods.base import ValueMod


class RecordedScores(NamedTuple):
    """Scores that a mixer adds to the trace.

    Args:
        mod: name of the score mod that reads them in later layers.
        heads: number of heads.
        window: tokens that a query sees. None = all.
        memory: number of persistent keys.
    """

    mod: str
    heads: int
    window: int | None
    memory: int

    def describe(self) -> str:
        """Return the options of attention that decide which pairs are scored."""
        return f"heads {self.heads}, window {self.window or 'null'} and memory {self.memory}"


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
    def recorded_scores(self) -> "RecordedScores | None":
        """Scores that a forward adds to the trace. None = it adds none."""
        return None

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


def check_recorded_scores(recorded: Sequence[RecordedScores]) -> None:
    """Raise a ValueError if layers that add up their scores have others: each score is that of one pair of tokens."""
    for each in recorded[1:]:
        first = recorded[0]
        if first[1:] != each[1:]:
            raise ValueError(
                f"score_mods: {first.mod} adds the scores of one layer to those of the next, but attention has "
                f"{first.describe()} in one, and {each.describe()} in another; give all layers the same, or omit "
                f"{first.mod}"
            )
