import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm
from lightning_xt.system.option_checks import check_option


class AdaptiveRMSNorm(Norm):
    """Divide each vector by its root mean square and scale by a gain made from the row's condition.

    The adaptive norm of Peebles and Xie, 2022 (DiT, https://arxiv.org/abs/2212.09748) with RMSNorm in place of
    LayerNorm and without its shift. The gain is 1 + W condition, with W zero at the start.

    Args:
        condition_dim: width of the condition, which is given with the inputs of a forward; from Python, because no data
            module gives one.
        eps: added to the mean square before the root.
    """

    needed_input = "condition"

    def __init__(self, shape: LayerShape, *, condition_dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        check_option("norm: AdaptiveRMSNorm", "condition_dim", condition_dim, least=1)
        self.eps = eps
        self.to_gain = nn.Parameter(torch.zeros(condition_dim, shape.dim))

    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]:
        condition = inputs.require("condition", self).to(x.dtype)
        if condition.shape[-1] != len(self.to_gain):
            raise ValueError(
                f"norm: AdaptiveRMSNorm has condition_dim {len(self.to_gain)}, but the condition is "
                f"{condition.shape[-1]} wide; give both the same width"
            )
        gain = 1 + condition @ self.to_gain.to(x.dtype)
        return F.rms_norm(x, x.shape[-1:], eps=self.eps) * gain.view(-1, *(1,) * (x.dim() - 2), x.shape[-1])
