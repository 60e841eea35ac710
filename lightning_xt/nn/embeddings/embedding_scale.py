from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.embeddings.base import Embedding
from lightning_xt.system.option_checks import check_option


class EmbeddingScale(Embedding):
    """Multiply the sum of the token vectors and of the embeddings before this one in the list by a constant.

    Vaswani et al., 2017 (section 3.4). https://arxiv.org/abs/1706.03762

    Args:
        factor: the constant. None = the root of the stream's width.
    """

    def __init__(self, shape: LayerShape, *, factor: float | None = None) -> None:
        super().__init__()
        check_option("embeddings: EmbeddingScale", "factor", factor, above=0)
        self.factor = shape.dim**0.5 if factor is None else factor

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, cache: CallCache | None = None
    ) -> Float[Tensor, "b n D"]:
        return self.factor * x
