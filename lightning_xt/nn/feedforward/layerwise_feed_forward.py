from lightning_xt.core.layer_schedules import OptionSchedule, schedule_options
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.feedforward.base import FeedForwardFactory
from lightning_xt.nn.feedforward.chosen_feed_forward import ChosenFeedForward
from lightning_xt.system.option_checks import check_option, check_slots


class LayerwiseFeedForward(ChosenFeedForward):
    """Give each layer its own width, dropout or other options, by a list or by a straight line over depth.

    Mehta et al., 2024 (OpenELM), https://arxiv.org/abs/2404.14619, widen layers on such a line.

    Args:
        recipe: the feedforward of all layers.
        options: by option of the recipe, a value for each layer, or two: the first layer's and the last's, with a
            straight line between them, such as {hidden_dim: [256, 2048], dropout: [0.0, 0.2]}.
        multiple: number to whose multiples whole numbers on a line are rounded.
    """

    @check_slots
    def __init__(
        self, shape: LayerShape, *, recipe: FeedForwardFactory, options: OptionSchedule, multiple: int = 1
    ) -> None:
        super().__init__()
        where = "feedforward: LayerwiseFeedForward"
        check_option(where, "multiple", multiple, least=1)
        self.feedforward = recipe(shape, **schedule_options(where, recipe, options, multiple, shape))
