import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.normalizers.base import Normalizer, softmax_with_sinks


class QuietSoftmax(Normalizer):
    """Add 1 to the sum of the softmax, so that a head may gather nothing (softmax off by one).

    Miller, 2023. https://www.evanmiller.org/attention-is-off-by-one.html
    In x-transformers: attn_add_zero_kv.
    """

    backends = frozenset({"fused", "flex", "explicit"})
    zeros: Tensor

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__(shape)
        self.register_buffer("zeros", torch.zeros(shape.heads), persistent=False)

    def get_sinks(self) -> Float[Tensor, " h"]:
        return self.zeros

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        return softmax_with_sinks(scores, mask, self.zeros).to(scores.dtype)
