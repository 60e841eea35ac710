from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class PeriNorm(Placement):
    """Normalize the input and the output of each sublayer, the embeddings and the last output.

    Kim et al., 2025 (Peri-LN). https://arxiv.org/abs/2502.02732
    SandwichNorm has the same norms but for that of the embeddings.
    """

    norms_embeddings = True

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__(before=norm(shape), after=norm(shape))
