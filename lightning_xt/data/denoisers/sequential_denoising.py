import numpy as np

from lightning_xt.data.denoisers.base import Corrupted, Denoiser, Ids
from lightning_xt.data.denoisers.draws import Draws
from lightning_xt.system.option_checks import check_option


class SequentialDenoising(Denoiser):
    """Hide the last part of a sequence, behind one sentinel (UL2's S-denoiser, a prefix language model).

    Tay et al., 2022. https://arxiv.org/abs/2205.05131
    The hidden part has a length of a quarter of the sequence in the mean, as in the paper; all lengths between the
    limits are equally likely, and at least one token is hidden.

    Args:
        min_hidden: smallest fraction of the tokens that is hidden.
        max_hidden: largest fraction.
        mode: name of the mode, which stands in brackets before each source. None = no token.
        weight: how often this denoiser is chosen, relative to the others.
    """

    def __init__(
        self, *, min_hidden: float = 0.0, max_hidden: float = 0.5, mode: str | None = None, weight: float = 1.0
    ) -> None:
        super().__init__(mode=mode, weight=weight)
        check_option(self.name, "min_hidden", min_hidden, least=0, most=1)
        check_option(self.name, "max_hidden", max_hidden, least=0, most=1)
        if min_hidden > max_hidden:
            raise ValueError(
                f"{self.name} has min_hidden {min_hidden}, which is above max_hidden {max_hidden}; swap them"
            )
        self.min_hidden, self.max_hidden = min_hidden, max_hidden

    def corrupt(self, ids: Ids, sentinels: Ids, draws: Draws) -> Corrupted:
        least, most = self._limit(len(ids))
        hidden = least + int(draws.draw_uniform(1)[0] * (most - least + 1))
        mark, cut = sentinels[:1], len(ids) - hidden
        return Corrupted(np.concatenate((ids[:cut], mark)), np.concatenate((mark, ids[cut:])))

    def count_sentinels(self, n: int) -> int:
        return 1

    def measure(self, n: int) -> tuple[int, int]:
        least, most = self._limit(n)
        return n - least + 1, most + 1

    def _limit(self, n: int) -> tuple[int, int]:
        """Return the fewest and the most hidden tokens of n."""
        return max(1, round(n * self.min_hidden)), max(1, round(n * self.max_hidden))
