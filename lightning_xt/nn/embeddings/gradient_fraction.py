from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.embeddings.base import Embedding
from lightning_xt.system.option_checks import check_option


class GradientFraction(Embedding):
    """Pass on only a fraction of the gradient of the token vectors and of the embeddings before this one in the list.

    Ding et al., 2021 (CogView). https://arxiv.org/abs/2105.13290
    The vectors stay as they are. Large models diverge by the gradients of their embeddings first.
    In x-transformers: emb_frac_gradient.

    Args:
        fraction: fraction of the gradient, above 0 and at most 1.
    """

    def __init__(self, shape: LayerShape, *, fraction: float = 0.1) -> None:
        super().__init__()
        check_option("embeddings: GradientFraction", "fraction", fraction, above=0, most=1)
        self.fraction = fraction

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, cache: CallCache | None = None
    ) -> Float[Tensor, "b n D"]:
        fixed = x.detach()
        # Exactly x: the difference is zero.
        return fixed + self.fraction * (x - fixed)
