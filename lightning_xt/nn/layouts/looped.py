from collections.abc import Sequence

from lightning_xt.nn.layouts.base import Kind, Layout, Step
from lightning_xt.system.option_checks import check_option


class Looped(Layout):
    """Run through all layers several times with the same weights: depth without parameters.

    Dehghani et al., 2018 (Universal Transformers), https://arxiv.org/abs/1807.03819; at scale Zhu et al., 2025
    (looped language models), https://arxiv.org/abs/2510.25741. The number of loops is fixed: no halting, no exit gate.
    In x-transformers: weight_tie_layers, looped, max_looped_steps; weight_tie_layers is a depth of 1 here.

    Args:
        loops: number of times that a forward runs through all layers.
    """

    def __init__(self, depth: int, *, loops: int = 2) -> None:
        super().__init__(depth)
        check_option("layout: Looped", "loops", loops, least=1)
        self.loops = loops

    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        return [Step(kind, layer) for _ in range(self.loops) for layer in range(self.depth) for kind in kinds]
