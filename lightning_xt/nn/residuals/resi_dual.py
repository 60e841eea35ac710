import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.residuals.base import Residual


class ResiDual(Residual):
    """Keep two streams: sublayers read a normed one, and the sum of all outputs joins at the end.

    Xie et al., 2023. https://arxiv.org/abs/2304.14802
    The first stream is normed after each sum, as in PostNorm, by RMSNorm rather than LayerNorm. The second is normed
    once, without a gain, and added to the first. With `placement: NoNorm` there are no other norms.
    """

    def __init__(self, shape: LayerShape, index: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(shape.dim))

    def open(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n s D"]:
        return torch.stack((x, x), dim=-2)

    def read(self, stream: Float[Tensor, "b n s D"]) -> Float[Tensor, "b n D"]:
        return stream[..., 0, :]

    def write(self, stream: Float[Tensor, "b n s D"], out: Float[Tensor, "b n D"]) -> Float[Tensor, "b n s D"]:
        normed = _normalize(stream[..., 0, :] + out) * self.gain.to(stream.dtype)
        return torch.stack((normed, stream[..., 1, :] + out), dim=-2)

    def close(self, stream: Float[Tensor, "b n s D"]) -> Float[Tensor, "b n D"]:
        return stream[..., 0, :] + _normalize(stream[..., 1, :])


def _normalize(x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)
