from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.score_mods.base import Scored, ScoreMod


class ResidualScores(ScoreMod):
    """Add the scores of the layer before, head by head (RealFormer).

    He et al., 2020. https://arxiv.org/abs/2012.11747
    The biases of positions are not handed on, so that each layer adds its bias once.
    In x-transformers: residual_attn; hands on biases too, which then add up over the layers.
    """

    records_scores = True
    self_attention_only = True

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        if shape.depth * shape.calls == 1:
            raise ValueError(
                "score_mods: ResidualScores adds the scores of the layer before, but there is one layer; raise depth, "
                "or omit ResidualScores"
            )
        self.heads = shape.heads

    def prepare(self, call: Scored) -> Float[Tensor, "b h i j"] | None:
        """Return the scores of the layer before; None in the first layer."""
        if not call.trace.scores:
            return None
        before, keys = call.trace.scores[-1], call.keys.shape[-2]
        if before.shape[1] != self.heads or before.shape[-1] != keys:
            raise ValueError(
                f"score_mods: ResidualScores adds the scores of the layer before, {before.shape[1]} heads over "
                f"{before.shape[-1]} keys, but this layer has {self.heads} heads over {keys}; give both the same "
                "heads, window and memory"
            )
        return before

    def forward(
        self, scores: Float[Tensor, "b h i j"], p: Float[Tensor, "b h i j"] | None = None
    ) -> Float[Tensor, "b h i j"]:
        return scores if p is None else scores + p.to(scores.dtype)
