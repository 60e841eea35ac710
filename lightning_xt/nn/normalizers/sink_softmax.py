import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.normalizers.base import Normalizer, softmax_with_sinks


class SinkSoftmax(Normalizer):
    """Compute a softmax over the keys and a learned score per head, which takes weight and gathers nothing.

    Xiao et al., 2023 (attention sinks), https://arxiv.org/abs/2309.17453, in the form of gpt-oss: OpenAI, 2025,
    https://arxiv.org/abs/2508.10925
    The score starts at 0.
    In x-transformers: attn_head_learned_sink; in plain products only.
    """

    backends = frozenset({"fused", "flex", "explicit"})

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__(shape)
        self.sinks = nn.Parameter(torch.zeros(shape.heads))

    def get_sinks(self) -> Float[Tensor, " h"]:
        return self.sinks

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        return softmax_with_sinks(scores, mask, self.sinks).to(scores.dtype)
