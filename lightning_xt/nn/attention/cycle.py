from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.base import Mixer, MixerFactory
from lightning_xt.system.option_checks import check_slots


class Cycle(Mixer):
    """Alternate between recipes: layer 0 has the first, layer 1 the second, and after the last the first follows.

    Args:
        recipes: one mixer per layer of the pattern.
    """

    @check_slots
    def __init__(self, shape: LayerShape, *, recipes: Sequence[MixerFactory]) -> None:
        super().__init__()
        if not recipes:
            raise ValueError("attention: Cycle has an empty list of recipes; give at least one")
        if len(recipes) > shape.depth:
            raise ValueError(
                f"attention: Cycle has {len(recipes)} recipes, but there are only {shape.depth} layer(s); remove "
                "recipes, or raise depth"
            )
        self.mixer = recipes[shape.layer % len(recipes)](shape)

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
        return self.mixer(x, where, inputs, trace, cache)
