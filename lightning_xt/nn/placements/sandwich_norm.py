from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class SandwichNorm(Placement):
    """Norms the input and the output of each sublayer.

    Ding et al., 2021 (CogView). https://arxiv.org/abs/2105.13290

    Args:
        shape: sizes, given by the stack.
        norm: factory of the norms, given by the stack.
    """

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__()
        self.norm_before = norm(shape)
        self.norm_after = norm(shape)

    def normalize_input(self, x: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        return self.norm_before(x, inputs)

    def normalize_output(self, out: Float[Tensor, "b n D"], inputs: Inputs) -> Float[Tensor, "b n D"]:
        return self.norm_after(out, inputs)
