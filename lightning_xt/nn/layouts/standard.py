from collections.abc import Sequence

from lightning_xt.nn.layouts.base import Kind, Layout, Step


class Standard(Layout):
    """Call every layer once, its sublayers in the usual order."""

    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        return [Step(kind, layer) for layer in range(self.depth) for kind in kinds]
