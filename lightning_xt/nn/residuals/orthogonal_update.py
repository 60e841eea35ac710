import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.residuals.base import Residual


class OrthogonalUpdate(Residual):
    """Add only the part of the sublayer's output that is orthogonal to the token's stream.

    Oh et al., 2025. https://arxiv.org/abs/2505.11881
    In x-transformers: orthog_residual; one projection for all tokens of a row there, which lets them see the future.

    Args:
        eps: added to the squared length of the stream.
    """

    def __init__(self, shape: LayerShape, index: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps

    def write(self, stream: Float[Tensor, "b n D"], out: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        precise = torch.promote_types(stream.dtype, torch.float32)
        x, f = stream.to(precise), out.to(precise)
        along = (x * f).sum(dim=-1, keepdim=True) / (x.square().sum(dim=-1, keepdim=True) + self.eps)
        return (x + f - along * x).to(stream.dtype)
