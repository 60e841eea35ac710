import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.residuals.base import Residual


class ScaledAdd(Residual):
    """Multiply the stream by a constant and by a learned gain per feature before adding the sublayer's output.

    Learned gain: Shleifer et al., 2021 (NormFormer). https://arxiv.org/abs/2110.09456
    Constant: Wang et al., 2022 (DeepNet). https://arxiv.org/abs/2203.00555
    NormFormer has the gain at feedforwards only. DeepNet has PostNorm and the constant (2 depth)^(1/4) in a decoder or
    an encoder alone; it also starts some weights smaller.
    In x-transformers: scale_residual, scale_residual_constant.

    Args:
        constant: factor of the stream.
        learned: False for the constant alone.
    """

    def __init__(self, shape: LayerShape, index: int, *, constant: float = 1.0, learned: bool = True) -> None:
        super().__init__()
        self.constant = constant
        self.gain = nn.Parameter(torch.ones(shape.dim)) if learned else None

    def write(self, stream: Float[Tensor, "b n D"], out: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        factor = self.constant if self.gain is None else self.constant * self.gain.to(stream.dtype)
        return factor * stream + out
