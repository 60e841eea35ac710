from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.objectives.base import LanguageModelLike, Loss, Objective
from lightning_xt.objectives.cross_entropy import cross_entropy


class ForgetfulNextToken(Objective):
    """Predicts each next token while a random part of the past is hidden, in training only (FCM).

    Liu et al., 2022. https://arxiv.org/abs/2210.13432
    Each row draws a share, each of its tokens is hidden from all queries with that chance, and the first token never.

    Args:
        max_share: largest share of hidden tokens; a row's share is uniform between 0 and this.
    """

    def __init__(self, *, max_share: float = 0.15) -> None:
        super().__init__()
        if not 0 <= max_share < 1:
            raise ValueError(
                f"objective: ForgetfulNextToken has max_share {max_share}, which must be 0 or more, below 1"
            )
        self.max_share = max_share

    def forward(
        self,
        model: LanguageModelLike,
        tokens: Int[Tensor, "b m"],
        scored: Bool[Tensor, "b n"] | None = None,
        inputs: Inputs | None = None,
    ) -> Loss:
        read = tokens[:, :-1]
        if not self.training:
            return cross_entropy(model(read, inputs=inputs), tokens[:, 1:], scored)
        share = self.max_share * torch.rand(read.shape[0], 1, device=read.device)
        hidden = torch.rand(read.shape, device=read.device) < share
        hidden[:, 0] = False
        inputs = replace(inputs or Inputs(), hidden=hidden)
        return cross_entropy(model(read, inputs=inputs), tokens[:, 1:], scored)
