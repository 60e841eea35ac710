from collections.abc import Sequence

from lightning_xt.nn.layouts.base import Kind, Layout, Step, build_steps
from lightning_xt.system.option_checks import check_option


class SandwichOrder(Layout):
    """Move some attention to the start and as many feedforwards to the end; layers alternate in between.

    Press, Smith and Levy, 2019. https://arxiv.org/abs/1911.03864
    The order is a^k (a f)^(depth - k) f^k, where cross-attention, if there is any, follows each a.
    In x-transformers: sandwich_coef; no cross-attention among the first k there.

    Args:
        coefficient: k, from 0 to the depth. None = three eighths of the depth, rounded, but at least 1; the paper found
            6 of 16 best.
    """

    def __init__(self, depth: int, *, coefficient: int | None = None) -> None:
        super().__init__(depth)
        check_option("layout: SandwichOrder", "coefficient", coefficient, least=0, most=depth)
        self.coefficient = max(1, round(3 * depth / 8)) if coefficient is None else coefficient

    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        between = self.depth - self.coefficient
        return build_steps("a" * self.coefficient + "af" * between + "f" * self.coefficient, kinds)
