from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.nn.heads.base import Head, HeadFactory
from lightning_xt.nn.heads.untied_head import UntiedHead
from lightning_xt.system.option_checks import check_option, check_slots


class SigmoidCapHead(Head):
    """Bound the logits of another head between 0 and a limit: limit * sigmoid((logit + shift) / width).

    Of public speedruns of small language models, 2025 (asymmetric soft-cap).
    https://github.com/KellerJordan/modded-nanogpt

    Args:
        head: head whose logits are changed.
        limit: largest logit.
        shift: added to the logits; the larger, the smaller the difference that is left between large logits.
        width: divides the logits; the larger, the later they are bounded.
    """

    @check_slots
    def __init__(
        self,
        embedding: nn.Embedding,
        *,
        head: HeadFactory = UntiedHead,
        limit: float = 23.0,
        shift: float = 5.0,
        width: float = 7.5,
    ) -> None:
        super().__init__()
        for name, value in (("limit", limit), ("width", width)):
            check_option("head: SigmoidCapHead", name, value, above=0)
        self.head, self.limit, self.shift, self.width = head(embedding), limit, shift, width

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n v"]:
        return self.limit * ((self.head(x) + self.shift) / self.width).sigmoid()
