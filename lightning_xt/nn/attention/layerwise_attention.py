from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.layer_schedules import OptionSchedule, schedule_options
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.base import Mixer, MixerFactory
from lightning_xt.system.option_checks import check_option, check_slots


class LayerwiseAttention(Mixer):
    """Give each layer its own heads, window, dropout or other options, by a list or by a straight line over depth.

    Mehta et al., 2024 (OpenELM), https://arxiv.org/abs/2404.14619, widen layers on such a line, with a fixed dim_head.

    Args:
        recipe: the mixer of all layers.
        options: by option of the recipe, a value for each layer, or two: the first layer's and the last's, with a
            straight line between them, such as {heads: [4, 12], window: [64, 64, null, 64]}.
        multiple: number to whose multiples whole numbers on a line are rounded.
    """

    @check_slots
    def __init__(self, shape: LayerShape, *, recipe: MixerFactory, options: OptionSchedule, multiple: int = 1) -> None:
        super().__init__()
        where = "attention: LayerwiseAttention"
        check_option(where, "multiple", multiple, least=1)
        self.mixer = recipe(shape, **schedule_options(where, recipe, options, multiple, shape))

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
