from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.normalizers.base import Normalizer


class Sigmoid(Normalizer):
    """Weigh every key separately, without competition between keys.

    Ramapuram et al., 2024. https://arxiv.org/abs/2409.04431
    The paper offsets scores by minus the log of the sequence length, this by minus the log of the number of keys that
    the query sees. Both are equal for full attention, and decoding with a cache stays equal to one forward.
    In x-transformers: attn_sigmoid; without the paper's offset.

    Args:
        offset: added to every score. None = minus the log of the number of keys that the query sees.
    """

    def __init__(self, shape: AttentionShape, *, offset: float | None = None) -> None:
        super().__init__(shape)
        self.offset = offset

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        if self.offset is None:
            scores = scores - mask.sum(dim=-1, keepdim=True).clamp(min=1).log().to(scores.dtype)
        else:
            scores = scores + self.offset
        return scores.sigmoid().masked_fill(~mask, 0.0)
