from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class LayerNormScaling(Placement):
    """Normalize the input of each sublayer and divide it by the root of its layer's number, from 1.

    Sun et al., 2025 (The Curse of Depth). https://arxiv.org/abs/2502.05795
    The paper starts the last map of each sublayer as any other, without a factor for depth.
    """

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__(before=norm(shape))
        self.factor = (shape.layer + 1) ** -0.5

    def normalize_input(self, x: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        return self.factor * super().normalize_input(x, inputs)
