from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm


class SimpleRMSNorm(Norm):
    """Divide each vector by its root mean square, without a gain.

    Qin et al., 2023 (TransNormerLLM). https://arxiv.org/abs/2307.14995
    In x-transformers: use_simple_rmsnorm.

    Args:
        eps: added to the mean square before the root.
    """

    def __init__(self, shape: LayerShape, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]:
        return F.rms_norm(x, x.shape[-1:], eps=self.eps)
