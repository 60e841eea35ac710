import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.normalizers.base import Normalizer, replace_gradient, softmax_over_visible
from lightning_xt.system.option_checks import check_option


class GumbelSoftmax(Normalizer):
    """Draw the weights: a softmax of scores with Gumbel noise, in training only.

    Jang, Gu and Poole, 2016. https://arxiv.org/abs/1611.01144
    Outside training no noise is added, so that decoding is deterministic.
    In x-transformers: attn_gumbel_softmax, attn_gumbel_softmax_temp, attn_gumbel_softmax_hard; adds noise outside
    training too.

    Args:
        temperature: divides the scores before a softmax; the closer to 0, the closer a draw is to a single key.
        hard: True if all weight goes to the key with the highest noisy score, with the gradient of the softmax.
    """

    def __init__(self, shape: AttentionShape, *, temperature: float = 1.0, hard: bool = False) -> None:
        super().__init__(shape)
        check_option("normalizer: GumbelSoftmax", "temperature", temperature, above=0)
        self.temperature, self.hard = temperature, hard

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        noisy = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if self.training:
            # Minus the log of an exponential draw is a Gumbel draw.
            noisy = noisy - torch.empty_like(noisy).exponential_().log()
        weights = softmax_over_visible(noisy / self.temperature, mask)
        if self.hard:
            best = weights.argmax(dim=-1, keepdim=True)
            one = torch.zeros_like(weights).scatter(-1, best, 1.0).masked_fill(~mask, 0.0)
            weights = replace_gradient(one, weights)
        return weights.to(scores.dtype)
