import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.normalizers.base import Normalizer


class Inverted(Normalizer):
    """Let the queries compete for each key by a softmax over them, then divide the weights of a query by their sum.

    Locatello et al., 2020 (slot attention). https://arxiv.org/abs/2006.15055
    The queries are slots in the paper; here they are the tokens of an encoder. In a decoder, cross-attention included,
    the weights of a token would depend on later tokens.
    In x-transformers: attn_inverted_attention.
    """

    sees_ahead = True

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__(shape)
        if shape.causal or shape.context_dim is not None:
            raise ValueError(
                "normalizer: Inverted lets all queries compete, so that a token's weights depend on later tokens; it "
                "serves the self-attention of an encoder only; choose another"
            )

    def weigh(self, scores: Float[Tensor, "b h i j"], where: Where) -> Float[Tensor, "b h i j"]:
        mask = where.dense()
        # Padding does not compete.
        weights: Tensor = self(scores, mask if where.valid is None else mask & where.valid[:, None, :, None])
        return weights

    def forward(self, scores: Float[Tensor, "b h i j"], mask: Bool[Tensor, "#b #h i j"]) -> Float[Tensor, "b h i j"]:
        precise = torch.promote_types(scores.dtype, torch.float32)
        hidden = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        won = hidden.softmax(dim=-2, dtype=precise).masked_fill(~mask, 0.0)
        return (won / won.sum(dim=-1, keepdim=True).clamp(min=1e-8)).to(scores.dtype)
