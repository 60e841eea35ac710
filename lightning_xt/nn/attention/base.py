"""The contract of a mixer: moves information between tokens."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where


class Mixer(nn.Module, ABC):
    """Attention, or anything that can stand in its place."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        """Mixes the tokens of each row.

        Args:
            x: hidden states of the new tokens.
            where: their positions, and which of them may look at which.
            inputs: what the forward was given beside the tokens; cross-attention reads its context there.
            trace: what earlier layers of this forward left.
            cache: memory of this call of the layer. None outside decoding.
        """


MixerFactory = Callable[[LayerShape], Mixer]
