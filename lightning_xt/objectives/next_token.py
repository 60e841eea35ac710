from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.option_tensor import OptionTensor
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.objectives.auxiliaries.base import Auxiliary, AuxiliaryFactory
from lightning_xt.objectives.base import LanguageModelLike, Loss, Objective
from lightning_xt.objectives.cross_entropy import IGNORED, compute_logit_z_loss, cross_entropy, split_targets
from lightning_xt.system.option_checks import check_option


class NextToken(Objective):
    """Minimise the mean negative log-likelihood of each next token.

    Label smoothing: Szegedy et al., 2015, https://arxiv.org/abs/1512.00567
    Z-loss: Chowdhery et al., 2022 (PaLM), https://arxiv.org/abs/2204.02311, with a weight of 1e-4.
    In x-transformers: ignore_index; always -100 here.

    Args:
        label_smoothing: fraction of each target's weight that is spread evenly over the vocabulary, in training only;
            not over the pad and start ids, nor ids that no text has.
        z_loss: weight, in the training loss, of the squared logarithm of the softmax's normalizer, a mean over the
            targets. It keeps logits near 0.
        auxiliaries: further losses of training, each with trained parameters.
    """

    def __init__(
        self,
        shape: ObjectiveShape,
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        auxiliaries: Sequence[AuxiliaryFactory] = (),
    ) -> None:
        super().__init__()
        check_option("objective: NextToken", "label_smoothing", label_smoothing, least=0, below=1)
        check_option("objective: NextToken", "z_loss", z_loss, least=0)
        self.label_smoothing, self.z_loss = label_smoothing, z_loss
        self.auxiliaries = nn.ModuleList(make(shape) for make in auxiliaries)
        _refuse_repeated([type(each).__name__ for each in self.auxiliaries])
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
        counted = targets if scored is None else targets.masked_fill(~scored, IGNORED)
        if self.training:
            inputs = replace(inputs or Inputs(), scored=counted != IGNORED)
        logits, trace = model(read, inputs=inputs, trace=Trace())
        loss = cross_entropy(logits, targets, scored, smoothing, self._unused.to(logits.device))
        terms = trace.sum_losses()
        if self.training:
            if self.z_loss:
                terms["logit_z_loss"] = self.z_loss * compute_logit_z_loss(logits, counted)
            for each in cast(Iterable[Auxiliary], self.auxiliaries):
                terms[each.name] = each.compute(trace, logits, counted, inputs)
        return replace(loss, terms=terms, logits=logits, memories=trace.memories)


def _refuse_repeated(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"objective: NextToken has the auxiliaries {', '.join(names)}; give {name} once")
