from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.filters.vocabulary_checks import MAX_LOGIT_BIAS, count_tokens
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option


class PresencePenalty(Filter):
    """Subtract a penalty from the logits of tokens that were generated before; the prompt does not count.

    Control ids, such as the end, are exempt.

    Args:
        penalty: number to subtract; below 0 it makes repetition more likely.
    """

    options = ("penalty",)

    def __init__(self, penalty: int | float) -> None:
        check_option("filters: PresencePenalty", "penalty", penalty, least=-MAX_LOGIT_BIAS, most=MAX_LOGIT_BIAS)
        self.penalty = penalty

    def __call__(self, logits: Logits, history: History) -> Logits:
        present = count_tokens(history.tokens, history.generated & history.text, logits.shape[-1]) > 0
        return logits - self.penalty * present.to(logits.dtype)
