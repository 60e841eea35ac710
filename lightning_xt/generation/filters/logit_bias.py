import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.option_tensor import OptionTensor
from lightning_xt.generation.filters.vocabulary_checks import LARGEST, check_ids, check_vocabulary
from lightning_xt.generation.history import History


class LogitBias(Filter):
    """Adds numbers to the logits of chosen words.

    Args:
        biases: what to add to the logit of each id.
    """

    def __init__(self, biases: dict[int, int | float]) -> None:
        check_ids("biases of LogitBias", biases)
        for token, bias in biases.items():
            if not abs(bias) <= LARGEST:
                raise ValueError(
                    f"filters: LogitBias has {bias} for token {token} in biases, which must be from -{LARGEST} to "
                    f"{LARGEST}; Banned rules a token out"
                )
        self.biases = dict(biases)
        self._ids = OptionTensor(self.biases.keys(), torch.long)
        self._values = OptionTensor(self.biases.values(), torch.double)

    def __call__(self, logits: Float[Tensor, "b v"], history: History) -> Float[Tensor, "b v"]:
        check_vocabulary("biases of LogitBias", self.biases, logits.shape[-1])
        values = self._values.on(logits.device).to(logits.dtype)
        return logits.index_add(1, self._ids.on(logits.device), values.expand(logits.shape[0], -1))
