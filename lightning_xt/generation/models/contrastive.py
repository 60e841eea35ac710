"""Contrastive decoding: tokens that weaker models also like count less."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.models.joint_cache import JointModel
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.system.option_checks import check_option


class Contrastive(JointModel):
    """Model that scores plausible tokens by (1 + strength) log p - strength log q, with q from amateur models.

    O'Brien & Lewis, 2023. https://arxiv.org/abs/2309.09117
    With several amateurs log q is their mean. A token is plausible if the model gives it at least `plausibility` times
    the highest probability; all others get minus infinity. All models get the same inputs.

    Args:
        model: the expert.
        amateurs: weaker models of the same vocabulary; they are put into evaluation mode and stay in it.
        strength: weight of the amateurs; 0 = the model's own scores of its plausible tokens.
        plausibility: fraction of the highest probability that a token needs, above 0 and at most 1; 1 keeps only the
            most likely.
    """

    def __init__(
        self,
        model: Autoregressive,
        amateurs: Sequence[Autoregressive],
        *,
        strength: int | float = 0.5,
        plausibility: int | float = 0.1,
    ) -> None:
        check_option("contrastive decoding", "strength", strength, least=0)
        check_option("contrastive decoding", "plausibility", plausibility, above=0, most=1)
        if not amateurs:
            raise ValueError("contrastive decoding has no amateurs; give at least one model to compare with")
        for amateur in amateurs:
            _check_vocabulary(model, amateur)
            amateur.train(False)
        super().__init__(model, *amateurs)
        self.strength = strength
        self.plausibility = plausibility

    def combine(self, log_probs: list[Float[Tensor, "b _ v"]]) -> Float[Tensor, "b _ v"]:
        own, *others = log_probs
        amateur = torch.stack(others).mean(dim=0)
        least = own.amax(dim=-1, keepdim=True) + math.log(self.plausibility)
        return (own + self.strength * (own - amateur)).masked_fill(own < least, -math.inf)


def _check_vocabulary(model: Autoregressive, amateur: Autoregressive) -> None:
    if amateur.vocab_size != model.vocab_size:
        raise ValueError(
            f"an amateur has a vocabulary of {amateur.vocab_size} tokens and the model one of {model.vocab_size}; give "
            "amateurs that were trained with the same tokenizer"
        )
