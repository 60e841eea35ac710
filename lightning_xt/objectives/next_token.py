from jaxtyping import Bool, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.objectives.base import LanguageModelLike, Loss, Objective
from lightning_xt.objectives.cross_entropy import cross_entropy


class NextToken(Objective):
    """Minimises the mean negative log-likelihood of each next token."""

    def forward(
        self,
        model: LanguageModelLike,
        tokens: Int[Tensor, "b m"],
        scored: Bool[Tensor, "b n"] | None = None,
        inputs: Inputs | None = None,
    ) -> Loss:
        return cross_entropy(model(tokens[:, :-1], inputs=inputs), tokens[:, 1:], scored)
