from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.score_mods.base import ScoreMod
from lightning_xt.system.option_checks import check_option


class SoftCap(ScoreMod):
    """Bound scores smoothly to plus or minus a cap: cap * tanh(score / cap).

    Gemma Team, 2024 (Gemma 2). https://arxiv.org/abs/2408.00118
    In x-transformers: attn_softclamp_logits, attn_logit_softclamp_value.

    Args:
        cap: upper limit of the absolute value of a score.
    """

    backends = frozenset({"flex", "explicit"})

    def __init__(self, shape: AttentionShape, *, cap: float = 50.0) -> None:
        super().__init__()
        check_option("score_mods: SoftCap", "cap", cap, above=0)
        self.cap = cap

    def forward(self, scores: Float[Tensor, "..."], p: None = None) -> Float[Tensor, "..."]:
        return self.cap * (scores / self.cap).tanh()
