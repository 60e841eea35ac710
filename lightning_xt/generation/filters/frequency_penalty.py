from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import MAX_LOGIT_BIAS, count_tokens
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class FrequencyPenalty(Filter):
    """Subtract a penalty from a token's logit for each time that it was generated; the prompt does not count.

    Control ids, such as the end, are exempt.

    Args:
        penalty: number to subtract; below 0 it makes repetition more likely.
    """

    options = ("penalty",)

    def __init__(self, penalty: int | float) -> None:
        check_option("filters: FrequencyPenalty", "penalty", penalty, least=-MAX_LOGIT_BIAS, most=MAX_LOGIT_BIAS)
        self.penalty = penalty

    def __call__(self, logits: Logits, history: History) -> Logits:
        times = count_tokens(history.tokens, history.generated & history.text, logits.shape[-1])
        return logits - self.penalty * times.to(logits.dtype)
