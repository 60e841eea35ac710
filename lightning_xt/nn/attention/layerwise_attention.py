from lightning_xt.core.layer_schedules import OptionSchedule, schedule_options
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.attention.base import MixerFactory
from lightning_xt.nn.attention.chosen_mixer import ChosenMixer
from lightning_xt.system.option_checks import check_option, check_slots


class LayerwiseAttention(ChosenMixer):
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
