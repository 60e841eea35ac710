import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.normalizers.base import Normalizer, replace_gradient, softmax_over_visible
from lightning_xt.system.option_checks import check_option


class Hard(Normalizer):
    """Give all weight to the key with the highest score; gradients are those of a softmax.

    Veličković et al., 2024 (the limit of a softmax at temperature 0). https://arxiv.org/abs/2410.01104
    The paper lowers the temperature of a trained softmax; here the limit is trained, straight through.
    In x-transformers: attn_hard.

    Args:
        temperature: divides the scores before a softmax; here that of the gradient only.
    """

    def __init__(self, shape: AttentionShape, *, temperature: float = 1.0) -> None:
        super().__init__(shape)
        check_option("normalizer: Hard", "temperature", temperature, above=0)
        self.temperature = temperature

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        best = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).argmax(dim=-1, keepdim=True)
        one = torch.zeros_like(scores).scatter(-1, best, 1.0).masked_fill(~mask, 0.0)
        return replace_gradient(one, softmax_over_visible(scores / self.temperature, mask).to(scores.dtype))
