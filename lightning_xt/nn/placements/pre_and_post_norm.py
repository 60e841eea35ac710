from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class PreAndPostNorm(Placement):
    """Normalize the input of each sublayer and the stream after it.

    The placement that x-transformers requires of a looped stack. https://github.com/lucidrains/x-transformers
    The looped language models of Zhu et al., 2025, https://arxiv.org/abs/2510.25741, have SandwichNorm.
    In x-transformers: pre_and_post_norm.
    """

    norms_output = False

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__(before=norm(shape), stream=norm(shape))
