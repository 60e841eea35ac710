from collections.abc import Sequence

from lightning_xt.nn.layouts.base import Kind, Layout, Step


class Macaron(Layout):
    """Put a feedforward before and after the attention of each layer, each with half its output.

    Lu et al., 2019. https://arxiv.org/abs/1906.02762
    The paper halves the width of the feedforwards, so that a layer has as many weights as usual: set their hidden_dim.
    In x-transformers: macaron.
    """

    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        mixers = [kind for kind in kinds if kind != "feedforward"]
        steps = []
        for layer in range(self.depth):
            steps += [
                Step("feedforward", layer),
                *(Step(kind, layer) for kind in mixers),
                Step("feedforward", layer, 1),
            ]
        return steps

    def get_factor(self, kind: Kind) -> float:
        return 0.5 if kind == "feedforward" else 1.0
