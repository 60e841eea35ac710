from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class PostNorm(Placement):
    """Norms the stream after each sublayer, as the first transformer did.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

    Args:
        shape: sizes, given by the stack.
        norm: factory of the norms, given by the stack.
    """

    norms_output = False

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__()
        self.norm_stream = norm(shape)

    def normalize_stream(self, stream: Float[Tensor, "b n *s D"], inputs: Inputs) -> Float[Tensor, "b n *s D"]:
        return self.norm_stream(stream, inputs)
