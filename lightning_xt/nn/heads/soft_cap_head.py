from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.nn.heads.base import Head, HeadFactory
from lightning_xt.nn.heads.untied_head import UntiedHead
from lightning_xt.system.option_checks import check_option, check_slots


class SoftCapHead(Head):
    """Bound the logits of another head smoothly to plus or minus a cap: cap * tanh(logit / cap).

    Gemma Team, 2024 (Gemma 2). https://arxiv.org/abs/2408.00118

    Args:
        head: head whose logits are changed.
        cap: upper limit of the absolute value of a logit.
    """

    @check_slots
    def __init__(self, embedding: nn.Embedding, *, head: HeadFactory = UntiedHead, cap: float = 30.0) -> None:
        super().__init__()
        check_option("head: SoftCapHead", "cap", cap, above=0)
        self.head, self.cap = head(embedding), cap

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n v"]:
        return self.cap * (self.head(x) / self.cap).tanh()
