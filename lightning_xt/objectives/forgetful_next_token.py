from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.packed_documents import find_document_starts
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.objectives.base import LanguageModelLike, Loss, Objective
from lightning_xt.objectives.cross_entropy import IGNORED, cross_entropy, split_targets
from lightning_xt.system.option_checks import check_option


class ForgetfulNextToken(Objective):
    """Predict each next token while a random part of the past is hidden, in training only (FCM).

    Liu et al., 2022. https://arxiv.org/abs/2210.13432
    Each row draws a fraction, and each of its tokens is hidden from all queries, its own included, with that
    probability. The first token of a row, or of each document in it, is never hidden.
    In x-transformers: mask_prob; it hides a part in evaluation too.

    Args:
        max_fraction: largest fraction of hidden tokens; a row's fraction is uniform between 0 and this.
    """

    def __init__(self, shape: ObjectiveShape, *, max_fraction: float = 0.15) -> None:
        super().__init__()
        check_option("objective: ForgetfulNextToken", "max_fraction", max_fraction, least=0, below=1)
        self.max_fraction = max_fraction
        self.training_only = f"hidden tokens (max_fraction {max_fraction:g})" if max_fraction else None

    def forward(
        self,
        model: LanguageModelLike,
        tokens: Int[Tensor, "b t"],
        scored: Bool[Tensor, "b n"] | None = None,
        inputs: Inputs | None = None,
    ) -> Loss:
        read, targets = split_targets(tokens)
        if self.training:
            fraction = self.max_fraction * torch.rand(read.shape[0], 1, device=read.device)
            hidden = torch.rand(read.shape, device=read.device) < fraction
            hidden[:, 0] = False
            inputs = inputs or Inputs()
            if inputs.documents is not None:
                starts = find_document_starts(inputs.documents)
                hidden &= starts != torch.arange(read.shape[1], device=read.device)
            hidden = hidden if inputs.hidden_tokens is None else hidden | inputs.hidden_tokens
            counted = targets != IGNORED if scored is None else scored & (targets != IGNORED)
            inputs = replace(inputs, hidden_tokens=hidden, scored=counted)
        logits, trace = model(read, inputs=inputs, trace=Trace())
        loss = cross_entropy(logits, targets, scored)
        return replace(loss, terms=trace.sum_losses(), logits=logits, memories=trace.memories)
