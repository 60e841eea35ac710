from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.embeddings.base import Embedding
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.system.option_checks import check_slots


class EmbeddingNorm(Embedding):
    """Normalize the sum of the token vectors and of the embeddings before this one in the list.

    The embedding norm of Le Scao et al., 2022 (BLOOM). https://arxiv.org/abs/2211.05100
    In x-transformers: post_emb_norm, l2norm_embed; the latter norms token vectors and positions apart.

    Args:
        norm: the norm.
    """

    @check_slots
    def __init__(self, shape: LayerShape, *, norm: NormFactory = RMSNorm) -> None:
        super().__init__()
        self.norm = norm(shape)

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, cache: CallCache | None = None
    ) -> Float[Tensor, "b n D"]:
        normed: Tensor = self.norm(x, inputs)
        return normed.to(x.dtype)
