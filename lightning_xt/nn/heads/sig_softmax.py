from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.nn.heads.base import Head, HeadFactory
from lightning_xt.nn.heads.untied_head import UntiedHead
from lightning_xt.system.option_checks import check_slots


class SigSoftmax(Head):
    """Add the log of their sigmoid to the logits of another head, so that probabilities go with e^z sigmoid(z).

    Kanai et al., 2018. https://arxiv.org/abs/1805.10829
    In x-transformers: sigsoftmax_logits; infinite there for logits below -88.

    Args:
        head: head whose logits are changed.
    """

    @check_slots
    def __init__(self, embedding: nn.Embedding, *, head: HeadFactory = UntiedHead) -> None:
        super().__init__()
        self.head = head(embedding)

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n v"]:
        logits = self.head(x)
        return logits + F.logsigmoid(logits)
