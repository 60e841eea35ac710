from lightning_xt.generation.filters.base import Filter, Logits
from lightning_xt.generation.history import History
from lightning_xt.system.option_checks import check_option

SMALLEST, LARGEST = 1e-20, 1e20


class Temperature(Filter):
    """Divide logits by a temperature: below 1 the distribution sharpens, above 1 it flattens.

    In x-transformers: temperature; it divides after the filters there.

    Args:
        temperature: divisor, above 0.
    """

    options = ("temperature",)

    def __init__(self, temperature: int | float) -> None:
        check_option("filters: Temperature", "temperature", temperature, above=0)
        self.temperature = temperature

    def __call__(self, logits: Logits, history: History) -> Logits:
        # Beyond these limits float32 overflows, and within them one token is certain or all are equally likely. Logits
        # are not shifted, because later filters use their sign.
        return logits / min(max(self.temperature, SMALLEST), LARGEST)
