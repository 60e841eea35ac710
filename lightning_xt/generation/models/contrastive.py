"""Contrastive decoding: what weaker models like too counts less."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.models.joint_cache import JointCache, score_jointly
from lightning_xt.generation.models.wrapper import ModelWrapper
from lightning_xt.generation.protocol import Autoregressive, DecodingCache
from lightning_xt.system.option_checks import check_option


class Contrastive(ModelWrapper):
    """Scores plausible words by (1 + strength) log p(word) - strength log q(word), q being what amateurs think.

    O'Brien & Lewis, 2023. https://arxiv.org/abs/2309.09117
    Of several amateurs log q is the mean. A word is plausible where the model gives it at least a share of the
    probability of the likeliest one; all others have minus infinity. It keeps the protocol of a model, so the methods
    of decoding work with it, but for ContrastiveSearch, which needs a Decoder's vectors and refuses it. All models are
    given the same inputs.

    Args:
        model: whose words are drawn.
        amateurs: models of the same vocabulary that know less; they are put into evaluation mode and stay in it.
        strength: 0 = the model alone, over its plausible words.
        plausibility: share of the highest probability that a word needs; above 0, at most 1, which leaves the
            likeliest alone.
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
        if not 0 < plausibility <= 1:
            raise ValueError(
                f"contrastive decoding has plausibility {plausibility}, which must be above 0 and at most 1"
            )
        if not amateurs:
            raise ValueError("contrastive decoding has no amateurs; give at least one model to hold against the other")
        for amateur in amateurs:
            _check_vocabulary(model, amateur)
            amateur.train(False)
        super().__init__(model)
        self.amateurs = list(amateurs)
        self.strength = strength
        self.plausibility = plausibility

    def __call__(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        lengths: Int[Tensor, " b"] | None = None,
        inputs: Inputs | None = None,
        cache: DecodingCache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b _ v"]:
        """Contrasted scores of the token after each of the given ones; arguments as of the models."""
        readers = [(model, inputs) for model in (self.model, *self.amateurs)]
        own, *others = score_jointly(readers, tokens, lengths=lengths, cache=cache, last_only=last_only)
        doubt = torch.stack(others).mean(dim=0)
        least = own.amax(dim=-1, keepdim=True) + math.log(self.plausibility)
        return (own + self.strength * (own - doubt)).masked_fill(own < least, -math.inf)

    @property
    def max_length(self) -> int | None:
        """Longest sequence that all models can read, in tokens. None = any."""
        limits = [reader.max_length for reader in (self.model, *self.amateurs)]
        return min((limit for limit in limits if limit is not None), default=None)

    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> JointCache:
        """An empty memory for decoding; arguments as of the models."""
        readers = (self.model, *self.amateurs)
        return JointCache([each.new_cache(batch, capacity, slack=slack, window=window) for each in readers])


def _check_vocabulary(model: Autoregressive, amateur: Autoregressive) -> None:
    if amateur.vocab_size != model.vocab_size:
        raise ValueError(
            f"an amateur has a vocabulary of {amateur.vocab_size} tokens and the model one of {model.vocab_size}; give "
            "amateurs that were trained with the same tokenizer"
        )
