from collections.abc import Sequence

from lightning_xt.nn.layouts.base import Kind, Layout, Step


class AttentionOnly(Layout):
    """Call the attention of each layer, without feedforwards.

    Such as the toy models of Elhage et al., 2021. https://transformer-circuits.pub/2021/framework/index.html
    In x-transformers: only_attn.
    """

    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        return [Step(kind, layer) for layer in range(self.depth) for kind in kinds if kind != "feedforward"]
