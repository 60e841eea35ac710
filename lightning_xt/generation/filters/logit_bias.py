import torch

from lightning_xt.core.option_tensor import OptionTensor
from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import MAX_LOGIT_BIAS, check_ids, check_vocabulary
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class LogitBias(Filter):
    """Add numbers to the logits of given tokens.

    Args:
        biases: number to add to the logit of each id; Banned masks a token.
    """

    options = ("biases",)

    def __init__(self, biases: dict[int, int | float]) -> None:
        check_ids("biases of LogitBias", biases)
        for token, bias in biases.items():
            check_option("filters: LogitBias", f"biases[{token}]", bias, least=-MAX_LOGIT_BIAS, most=MAX_LOGIT_BIAS)
        self.biases = dict(biases)
        self._ids = OptionTensor(self.biases.keys(), torch.long)
        self._values = OptionTensor(self.biases.values(), torch.double)

    def __call__(self, logits: Logits, history: History) -> Logits:
        check_vocabulary("biases of LogitBias", self.biases, logits.shape[-1])
        values = self._values.to(logits.device).to(logits.dtype)
        return logits.index_add(1, self._ids.to(logits.device), values.expand(logits.shape[0], -1))
