from collections.abc import Sequence

from lightning_xt.nn.layouts.base import Kind, Layout, Step


class LayerOrder(Layout):
    """Run whole layers in a given order; a layer that is named again runs again, with the same weights.

    Groups of layers that share weights, as in Lan et al., 2019 (ALBERT), https://arxiv.org/abs/1909.11942, are an order
    such as [0, 0, 0, 1, 1, 1].
    In x-transformers: layers_execute_order, weight_tie_layers; single sublayers are named there.

    Args:
        order: numbers of layers, from 0 to the depth - 1, such as [0, 1, 1, 2]; each at least once.
    """

    def __init__(self, depth: int, *, order: Sequence[int]) -> None:
        super().__init__(depth)
        if set(order) != set(range(depth)):
            raise ValueError(
                f"layout: LayerOrder has order {list(order)}, which must name each layer from 0 to {depth - 1} at "
                "least once, and no other"
            )
        self.order = order

    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        return [Step(kind, layer) for layer in self.order for kind in kinds]
