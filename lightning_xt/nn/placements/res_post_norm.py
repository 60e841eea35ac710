from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class ResPostNorm(Placement):
    """Normalize the output of each sublayer before the residual, and not its input.

    Liu et al., 2021 (Swin Transformer V2), https://arxiv.org/abs/2111.09883; in a language model OLMo 2, 2025,
    https://arxiv.org/abs/2501.00656
    The stack norms the stream at the end, as both do.
    """

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__(after=norm(shape))
