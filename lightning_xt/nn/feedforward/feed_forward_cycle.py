from collections.abc import Sequence

from lightning_xt.core.layer_schedules import choose_by_layer
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.feedforward.base import FeedForwardFactory
from lightning_xt.nn.feedforward.chosen_feed_forward import ChosenFeedForward
from lightning_xt.system.option_checks import check_slots


class FeedForwardCycle(ChosenFeedForward):
    """Alternate between recipes: layer 0 has the first, layer 1 the second, and after the last the first follows.

    With as many recipes as layers each layer has its own. A layer with experts after each one without, for example, is
    the arrangement of Lepikhin et al., 2020 (GShard), https://arxiv.org/abs/2006.16668.

    Args:
        recipes: one feedforward per layer of the pattern.
    """

    @check_slots
    def __init__(self, shape: LayerShape, *, recipes: Sequence[FeedForwardFactory]) -> None:
        super().__init__()
        self.feedforward = choose_by_layer("feedforward: FeedForwardCycle", "recipes", recipes, shape)(shape)
