from jaxtyping import Bool, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.objectives.base import LanguageModelLike, Loss, Objective
from lightning_xt.objectives.cross_entropy import cross_entropy, split_targets
from lightning_xt.system.option_checks import check_option


class NextToken(Objective):
    """Minimise the mean negative log-likelihood of each next token.

    Label smoothing: Szegedy et al., 2015, https://arxiv.org/abs/1512.00567

    Args:
        label_smoothing: fraction of each target's weight that is spread evenly over the vocabulary, in training only.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check_option("objective: NextToken", "label_smoothing", label_smoothing, least=0, below=1)
        self.label_smoothing = label_smoothing

    def forward(
        self,
        model: LanguageModelLike,
        tokens: Int[Tensor, "b t"],
        scored: Bool[Tensor, "b n"] | None = None,
        inputs: Inputs | None = None,
    ) -> Loss:
        smoothing = self.label_smoothing if self.training else 0.0
        read, targets = split_targets(tokens)
        return cross_entropy(model(read, inputs=inputs), targets, scored, smoothing)
