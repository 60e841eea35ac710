from collections.abc import Sequence

from lightning_xt.core.layer_schedules import choose_by_layer
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.attention.base import MixerFactory
from lightning_xt.nn.attention.chosen_mixer import ChosenMixer
from lightning_xt.system.option_checks import check_slots


class Cycle(ChosenMixer):
    """Alternate between recipes: layer 0 has the first, layer 1 the second, and after the last the first follows.

    Args:
        recipes: one mixer per layer of the pattern.
    """

    @check_slots
    def __init__(self, shape: LayerShape, *, recipes: Sequence[MixerFactory]) -> None:
        super().__init__()
        self.mixer = choose_by_layer("attention: Cycle", "recipes", recipes, shape)(shape)
