from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.feedforward.base import FeedForward, FeedForwardFactory
from lightning_xt.system.option_checks import check_slots


class FeedForwardCycle(FeedForward):
    """Alternate between recipes: layer 0 has the first, layer 1 the second, and after the last the first follows.

    With as many recipes as layers each layer has its own. A layer with experts after each one without, for example, is
    the arrangement of Lepikhin et al., 2020 (GShard), https://arxiv.org/abs/2006.16668.

    Args:
        recipes: one feedforward per layer of the pattern.
    """

    @check_slots
    def __init__(self, shape: LayerShape, *, recipes: Sequence[FeedForwardFactory]) -> None:
        super().__init__()
        if not recipes:
            raise ValueError("feedforward: FeedForwardCycle has an empty list of recipes; give at least one")
        if len(recipes) > shape.depth:
            raise ValueError(
                f"feedforward: FeedForwardCycle has {len(recipes)} recipes, but there are only {shape.depth} layer(s); "
                "remove recipes, or raise depth"
            )
        self.feedforward = recipes[shape.layer % len(recipes)](shape)

    def transform(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        return self.feedforward.transform(x, where, inputs, trace)

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        out: Tensor = self.feedforward(x)
        return out
