import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.previous_tokens import get_previous
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.embeddings.base import Embedding
from lightning_xt.system.option_checks import check_option


class Smear(Embedding):
    """Add a gated part of the token vector before to each token vector.

    Larry Dial, 2025. https://github.com/KellerJordan/modded-nanogpt/pull/130
    The gate is strength * sigmoid(w x), of the first features of the token itself. Both w and the strength start at
    zero. The first token of a document gets nothing; in the source it gets the last token of the document before.

    Args:
        num_features: number of first features that the gate reads; all if the stream has no more.
    """

    def __init__(self, shape: LayerShape, *, num_features: int = 12) -> None:
        super().__init__()
        check_option("embeddings: Smear", "num_features", num_features, least=1)
        self.gate = nn.Parameter(torch.zeros(min(num_features, shape.dim)))
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, cache: CallCache | None = None
    ) -> Float[Tensor, "b n D"]:
        (before,) = get_previous(x, where, cache, "smeared")
        precise = torch.promote_types(x.dtype, torch.float32)
        logits = (x[..., : len(self.gate)].to(precise) * self.gate.to(precise)).sum(dim=-1, keepdim=True)
        return x + (self.strength.to(precise) * logits.sigmoid()).to(x.dtype) * before
