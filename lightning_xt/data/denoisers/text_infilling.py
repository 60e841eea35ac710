import math

import numpy as np

from lightning_xt.data.denoisers.base import Corrupted, Denoiser, Ids, MarkedSpans
from lightning_xt.data.denoisers.draws import Draws
from lightning_xt.system.option_checks import check_option


class TextInfilling(Denoiser):
    """Replace random spans by one mask token each, and restore the whole sequence (BART).

    Lewis et al., 2019. https://arxiv.org/abs/1910.13461
    Lengths of spans follow a Poisson distribution; a span of no token inserts a mask token. Spans are drawn until they
    hide the fraction, and the last is cut to fit. If no more spans fit between the tokens that stay, the rest of the
    fraction lengthens spans at random. The mask token is the first sentinel. The paper's permutation of
    sentences is omitted, because windows of a text need not hold whole sentences.

    Args:
        hidden_fraction: fraction of the tokens that is hidden, at least one token.
        mean_length: mean of the Poisson distribution, in tokens; spans are longer if too few of this length fit.
        mode: name of the mode, which stands in brackets before each source. None = no token.
        weight: how often this denoiser is chosen, relative to the others.
    """

    def __init__(
        self, *, hidden_fraction: float = 0.3, mean_length: float = 3.0, mode: str | None = None, weight: float = 1.0
    ) -> None:
        super().__init__(mode=mode, weight=weight)
        check_option(self.name, "hidden_fraction", hidden_fraction, above=0, below=1)
        check_option(self.name, "mean_length", mean_length, least=1)
        self.hidden_fraction, self.mean_length = hidden_fraction, mean_length

    def corrupt(self, ids: Ids, sentinels: Ids, draws: Draws) -> Corrupted:
        lengths = self._draw_lengths(len(ids), draws)
        starts = draws.choose(len(lengths), len(ids) - int(lengths.sum()) + 1) + np.cumsum(lengths) - lengths
        return Corrupted(MarkedSpans(ids, starts, lengths, sentinels[:1]).hide(), ids)

    def count_sentinels(self, n: int) -> int:
        return 1

    def measure(self, n: int) -> tuple[int, int]:
        return n + self._count_spans(n), n

    def _draw_lengths(self, n: int, draws: Draws) -> Ids:
        """Draw the lengths of the spans of n tokens."""
        # Numbers far above the mean are less likely than the resolution of the uniform numbers.
        support = np.arange(int(self.mean_length + 12 * math.sqrt(self.mean_length)) + 24)
        logs = support * math.log(self.mean_length) - self.mean_length - [math.lgamma(each + 1.0) for each in support]
        cumulative = np.exp(logs).cumsum()
        spans, hidden = self._count_spans(n), self._count_hidden(n)
        drawn = np.searchsorted(cumulative, draws.draw_uniform(spans), side="right")
        if (missing := hidden - int(drawn.sum())) > 0:
            drawn += np.bincount((draws.draw_uniform(missing) * spans).astype(np.int64), minlength=spans)
        before = np.cumsum(drawn) - drawn
        return np.minimum(drawn, hidden - before)[before < hidden].astype(np.int64)

    def _count_hidden(self, n: int) -> int:
        return max(1, min(math.ceil(n * self.hidden_fraction), n - 1))

    def _count_spans(self, n: int) -> int:
        """Return the most spans of n tokens; few sequences need as many."""
        hidden = self._count_hidden(n)
        return min(hidden, n - hidden + 1)
