import numpy as np

from lightning_xt.data.denoisers.base import Corrupted, Denoiser, Ids, MarkedSpans
from lightning_xt.data.denoisers.draws import Draws
from lightning_xt.system.option_checks import check_option


class SpanCorruption(Denoiser):
    """Hide random spans, each behind a sentinel; the target is each sentinel with its span (T5).

    Raffel et al., 2019. https://arxiv.org/abs/1910.10683
    The numbers of hidden tokens and of spans follow from the length of the sequence, and all such choices are equally
    likely. Departs from the authors' code, where a sequence begins without a span and ends with one. The end id ends
    the target, in place of a last sentinel.
    UL2's R-denoiser has spans of 3 and of 8 tokens with a fraction of 0.15; its X-denoiser has long spans (64 tokens)
    or a fraction of 0.5. Tay et al., 2022. https://arxiv.org/abs/2205.05131

    Args:
        fraction: fraction of the tokens that is hidden, at least one token.
        mean_length: tokens of a span, a mean over the spans of each sequence.
        mode: name of the mode, which stands in brackets before each source. None = no token.
        weight: how often this denoiser is chosen, relative to the others.
    """

    def __init__(
        self, *, fraction: float = 0.15, mean_length: float = 3.0, mode: str | None = None, weight: float = 1.0
    ) -> None:
        super().__init__(mode=mode, weight=weight)
        check_option(self.name, "fraction", fraction, above=0, below=1)
        check_option(self.name, "mean_length", mean_length, least=1)
        self.fraction, self.mean_length = fraction, mean_length

    def corrupt(self, ids: Ids, sentinels: Ids, draws: Draws) -> Corrupted:
        hidden, spans = self._count(len(ids))
        lengths = draws.split(hidden, spans)
        starts = draws.choose(spans, len(ids) - hidden + 1) + np.cumsum(lengths) - lengths
        marked = MarkedSpans(ids, starts, lengths, sentinels[:spans])
        return Corrupted(marked.hide(), marked.list_spans())

    def count_sentinels(self, n: int) -> int:
        return self._count(n)[1]

    def measure(self, n: int) -> tuple[int, int]:
        counts = [(length, *self._count(length)) for length in range(1, n + 1)]
        sources = max(length - hidden + spans for length, hidden, spans in counts)
        return sources, max(hidden + spans for _, hidden, spans in counts)

    def _count(self, n: int) -> tuple[int, int]:
        """Count the hidden tokens and the spans of n tokens."""
        hidden = max(1, min(round(n * self.fraction), n - 1))
        return hidden, max(1, min(round(hidden / self.mean_length), n - hidden + 1))
