import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import Norm


class DynamicTanh(Norm):
    """Squash each feature by a tanh of learned steepness, then scale and shift it.

    Zhu et al., 2025. https://arxiv.org/abs/2503.10622
    It computes gain * tanh(alpha x) + shift, without statistics of the vector. Token vectors start too small for it:
    put EmbeddingNorm among the embeddings, where the paper's language models multiply them by a learned number.
    In x-transformers: use_dynamic_tanh, dynamic_tanh_init_alpha.

    Args:
        init_alpha: start of the steepness.
    """

    shifts = ("shift",)

    def __init__(self, shape: LayerShape, *, init_alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), init_alpha))
        self.gain = nn.Parameter(torch.ones(shape.dim))
        self.shift = nn.Parameter(torch.zeros(shape.dim))

    def forward(self, x: Float[Tensor, "... D"], inputs: Inputs) -> Float[Tensor, "... D"]:
        alpha, gain, shift = (each.to(x.dtype) for each in (self.alpha, self.gain, self.shift))
        return gain * (alpha * x).tanh() + shift
