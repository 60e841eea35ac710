from collections.abc import Sequence

from lightning_xt.nn.layouts.base import Kind, Layout, Step
from lightning_xt.system.option_checks import check_option


class Looped(Layout):
    """Run through all layers several times with the same weights: depth without parameters.

    Dehghani et al., 2018 (Universal Transformers), https://arxiv.org/abs/1807.03819; with a depth of 1 Lan et al., 2019
    (ALBERT), https://arxiv.org/abs/1909.11942. The number of loops is fixed, and the stream runs on without a norm
    between the loops. ExitLoops norms it there, and each of its passes can be an exit.
    In x-transformers: weight_tie_layers; a depth of 1 here.

    Args:
        loops: number of times that a forward runs through all layers.
    """

    def __init__(self, depth: int, *, loops: int = 2) -> None:
        super().__init__(depth)
        check_option("layout: Looped", "loops", loops, least=1)
        self.loops = loops

    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        return [Step(kind, layer) for _ in range(self.loops) for layer in range(self.depth) for kind in kinds]
