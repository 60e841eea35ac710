from typing import Any

import numpy as np

from lightning_xt.data.pairs.symbol_sequences import FIRST
from lightning_xt.data.probes.base import Probe, ProbeRows, join
from lightning_xt.data.probes.probe_draws import Draws, Ids


class Sorting(Probe):
    """Questions of random symbols, whose answer is the same symbols in ascending order.

    Args:
        num_symbols: number of different symbols, the ids from 2 up; one may occur several times.
        probe: the options of `Probe`. The length is the number of symbols.

    Examples:
        >>> from lightning_xt import Sorting
        >>> data = Sorting(min_length=4, batch_size=2)
        >>> next(iter(data.train_dataloader())).tokens.shape
        torch.Size([2, 9])
    """

    def __init__(self, *, num_symbols: int = 16, **probe: Any) -> None:
        super().__init__(**probe)
        self.check("num_symbols", num_symbols, least=2)
        self.num_symbols = num_symbols

    @property
    def num_ids(self) -> int:
        return self.num_symbols

    @property
    def options(self) -> tuple[Any, ...]:
        return (self.num_symbols,)

    def write(self, lengths: Ids, most: int, draws: Draws) -> ProbeRows:
        symbols = FIRST + draws.draw_integers(1, most, self.num_symbols)
        # What is past the length sorts behind all symbols.
        behind = np.where(np.arange(most) < lengths[:, None], symbols, FIRST + self.num_symbols)
        return join(symbols, lengths, np.sort(behind, axis=1), lengths)
