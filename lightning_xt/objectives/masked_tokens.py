import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightning_xt.core.option_tensor import OptionTensor
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.objectives.content_draws import draw_by_content
from lightning_xt.objectives.cross_entropy import IGNORED
from lightning_xt.objectives.masked_objective import Corruption, MaskedObjective
from lightning_xt.system.option_checks import check_option


class MaskedTokens(MaskedObjective):
    """Predict some tokens of each row, most of which the model reads as a mask token (BERT).

    Devlin et al., 2018. https://arxiv.org/abs/1810.04805
    Each row has a new choice at every step, whichever process trains on it. Evaluation chooses by the tokens of the row
    alone, so that all evaluations of a text choose the same. Special tokens are never chosen.
    In x-transformers: NonAutoregressiveWrapper.

    Args:
        fraction: fraction of a row's tokens to predict, rounded to whole tokens, at least one.
        mask_fraction: fraction of the chosen tokens that are read as the mask token.
        random_fraction: fraction of the chosen tokens that are read as a random token; the others are read as they are.
    """

    def __init__(
        self,
        shape: ObjectiveShape,
        *,
        fraction: float = 0.15,
        mask_fraction: float = 0.8,
        random_fraction: float = 0.1,
    ) -> None:
        super().__init__()
        where = "objective: MaskedTokens"
        check_option(where, "fraction", fraction, above=0, most=1)
        check_option(where, "mask_fraction", mask_fraction, least=0, most=1)
        check_option(where, "random_fraction", random_fraction, least=0, most=1)
        if mask_fraction + random_fraction > 1:
            raise ValueError(
                f"{where} has mask_fraction {mask_fraction} and random_fraction {random_fraction}, which add up to "
                "more than 1; lower one of them"
            )
        if shape.mask is None:
            raise ValueError(
                f"{where} needs a model with a mask token; set --model MaskedLanguageModel, or another objective"
            )
        self.mask, self.fraction = shape.mask, fraction
        self.mask_fraction, self.random_fraction = mask_fraction, random_fraction
        self._special = OptionTensor(shape.special, torch.long)
        self._plain = OptionTensor(sorted({*range(shape.vocab_size)} - {*shape.special}), torch.long)

    def corrupt(self, tokens: Int[Tensor, "b n"], real: Bool[Tensor, "b n"]) -> Corruption:
        device = tokens.device
        if self.training and self.step_seed is None:
            draws = torch.rand(3, *tokens.shape, device=device)
        else:
            draws = draw_by_content(tokens, 3, self.step_seed if self.training and self.step_seed else 0)
        eligible = real & ~torch.isin(tokens, self._special.to(device))
        most = max(1, round(self.fraction * tokens.shape[1]))
        # The eligible tokens with the smallest numbers; stable, so that every device chooses the same.
        places = draws[0].masked_fill(~eligible, 2.0).argsort(dim=1, stable=True)[:, :most]
        count = (self.fraction * eligible.sum(dim=1, keepdim=True)).round().clamp(min=1)
        chosen = eligible.gather(1, places) & (torch.arange(most, device=device) < count)
        targets = tokens.gather(1, places)
        plain = self._plain.to(device)
        other = plain[(draws[1].gather(1, places) * len(plain)).long().clamp(max=len(plain) - 1)]
        fate = draws[2].gather(1, places)
        seen = torch.where(fate < self.mask_fraction + self.random_fraction, other, targets)
        seen = seen.masked_fill(fate < self.mask_fraction, self.mask)
        read = tokens.scatter(1, places, torch.where(chosen, seen, targets))
        return Corruption(read, places, targets.masked_fill(~chosen, IGNORED))
