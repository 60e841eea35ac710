import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.nn.activations.base import Activation


class SoLU(Activation):
    """Multiply each feature by the softmax over the token's features.

    Elhage et al., 2022. https://transformer-circuits.pub/2022/solu/index.html
    The source follows it by a LayerNorm, which is `hidden_norm: LayerNorm` of the feedforward here.
    In x-transformers: ff_solu; includes the LayerNorm.
    """

    def forward(self, x: Float[Tensor, "... f"]) -> Float[Tensor, "... f"]:
        return x * x.softmax(dim=-1, dtype=torch.promote_types(x.dtype, torch.float32)).to(x.dtype)
