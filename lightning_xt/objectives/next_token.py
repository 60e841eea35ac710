from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.option_tensor import OptionTensor
from lightning_xt.core.trace import Trace
from lightning_xt.objectives.base import LanguageModelLike, Loss, Objective
from lightning_xt.objectives.cross_entropy import cross_entropy, split_targets
from lightning_xt.system.option_checks import check_option


class NextToken(Objective):
    """Minimise the mean negative log-likelihood of each next token.

    Label smoothing: Szegedy et al., 2015, https://arxiv.org/abs/1512.00567

    Args:
        label_smoothing: fraction of each target's weight that is spread evenly over the vocabulary, in training only;
            not over the pad and start ids, nor ids that no text has.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check_option("objective: NextToken", "label_smoothing", label_smoothing, least=0, below=1)
        self.label_smoothing = label_smoothing
        self.training_only = f"label_smoothing {label_smoothing:g}" if label_smoothing else None
        self._unused = OptionTensor([], torch.long)

    def exclude(self, ids: Sequence[int]) -> None:
        self._unused = OptionTensor(ids, torch.long)

    def forward(
        self,
        model: LanguageModelLike,
        tokens: Int[Tensor, "b t"],
        scored: Bool[Tensor, "b n"] | None = None,
        inputs: Inputs | None = None,
    ) -> Loss:
        smoothing = self.label_smoothing if self.training else 0.0
        read, targets = split_targets(tokens)
        if self.training and scored is not None:
            inputs = replace(inputs or Inputs(), scored=scored)
        logits, trace = model(read, inputs=inputs, trace=Trace())
        loss = cross_entropy(logits, targets, scored, smoothing, self._unused.to(logits.device))
        return replace(loss, terms=trace.sum_losses())
