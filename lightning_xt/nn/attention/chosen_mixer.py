"""Mixer that is another one, chosen by the layer."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.base import Mixer


class ChosenMixer(Mixer):
    """Mixer that hands everything to another one, which its constructor chooses by the layer."""

    mixer: Mixer

    @abstractmethod
    def __init__(self) -> None:
        super().__init__()

    @property
    def value_shape(self) -> tuple[int, int] | None:
        return self.mixer.value_shape

    def check_first_values(self, shape: tuple[int, int]) -> None:
        self.mixer.check_first_values(shape)

    @property
    def shared(self) -> tuple[tuple[str, str], ...]:
        return self.mixer.shared

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        made: tuple[Tensor, Trace] = self.mixer(x, where, inputs, trace, cache)
        return made
