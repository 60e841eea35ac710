import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm


class Derf(Norm):
    """Squash each feature by an error function of learned steepness and place, then scale and shift it.

    Chen et al., 2025. https://arxiv.org/abs/2512.10938
    It computes gain * erf(alpha x + s) + shift, without statistics of the vector. Token vectors start too small for it:
    put EmbeddingNorm among the embeddings.
    In x-transformers: use_derf.

    Args:
        init_alpha: start of the steepness.
    """

    shifts = ("shift",)

    def __init__(self, shape: LayerShape, *, init_alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), init_alpha))
        self.offset = nn.Parameter(torch.zeros(1))
        self.gain = nn.Parameter(torch.ones(shape.dim))
        self.shift = nn.Parameter(torch.zeros(shape.dim))

    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]:
        alpha, offset, gain, shift = (each.to(x.dtype) for each in (self.alpha, self.offset, self.gain, self.shift))
        return gain * torch.erf(alpha * x + offset) + shift
