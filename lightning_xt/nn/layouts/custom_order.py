from collections.abc import Sequence

from lightning_xt.nn.layouts.base import Kind, Layout, Step, build_steps


class CustomOrder(Layout):
    """Call sublayers in the order of a string of letters, such as aafaf.

    In x-transformers: custom_layers; only_cross is such an order with c and f alone.

    Args:
        order: a is attention, c cross-attention, f a feedforward; every letter is a sublayer with its own weights. The
            depth must be the number of the most frequent letter. Without a c in it, cross-attention follows each a, if
            the model has any.
    """

    def __init__(self, depth: int, *, order: str) -> None:
        super().__init__(depth)
        unknown = sorted(set(order) - set("acf"))
        if unknown or not order:
            raise ValueError(
                f"layout: CustomOrder has order {order!r}, which must be letters a (attention), c (cross-attention) "
                "and f (feedforward)"
            )
        if not set(order) & set("ac"):
            raise ValueError(
                f"layout: CustomOrder has order {order!r}, which omits attention, so that no token sees another; "
                "add an a, or a c in a model with cross_attention"
            )
        if "f" not in order:
            raise ValueError(
                f"layout: CustomOrder has order {order!r}, which omits the feedforward; add an f, or choose the "
                "layout AttentionOnly"
            )
        most = max(map(order.count, "acf"))
        if most != depth:
            raise ValueError(
                f"layout: CustomOrder has order {order!r}, whose most frequent letter stands {most} times, but depth "
                f"is {depth}; set depth to {most}"
            )
        self.order = order

    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        if "c" in self.order and "cross_attention" not in kinds:
            raise ValueError(
                f"layout: CustomOrder has order {self.order!r} with a c, but there is no cross_attention; remove the c"
            )
        return build_steps(self.order, kinds)
