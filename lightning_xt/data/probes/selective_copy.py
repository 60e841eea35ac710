from typing import Any

import numpy as np

from lightning_xt.data.pairs.symbol_sequences import FIRST
from lightning_xt.data.probes.base import Probe, ProbeRows, join
from lightning_xt.data.probes.probe_draws import Draws, Ids


class SelectiveCopy(Probe):
    """Questions of symbols at random places among blanks, whose answer is the symbols in their order.

    Gu and Dao, 2023 (Mamba), https://arxiv.org/abs/2312.00752, with 16 symbols in 4,096 tokens of 16 kinds. Here
    answers are read token by token, as in text. Without blanks it is plain copying.

    Args:
        num_symbols: number of different symbols, the ids from 2 up; the blank is the id after them.
        blanks: blanks for each symbol of a question.
        probe: the options of `Probe`. The length is the number of symbols.

    Examples:
        >>> from lightning_xt import SelectiveCopy
        >>> data = SelectiveCopy(min_length=4, blanks=2, batch_size=2)
        >>> next(iter(data.train_dataloader())).tokens.shape
        torch.Size([2, 17])
    """

    def __init__(self, *, num_symbols: int = 16, blanks: int = 3, **probe: Any) -> None:
        super().__init__(**probe)
        self.check("num_symbols", num_symbols, least=2)
        self.check("blanks", blanks, least=0)
        self.num_symbols, self.blanks = num_symbols, blanks

    @property
    def num_ids(self) -> int:
        return self.num_symbols + 1

    @property
    def options(self) -> tuple[Any, ...]:
        return (self.num_symbols, self.blanks)

    def write(self, lengths: Ids, most: int, draws: Draws) -> ProbeRows:
        symbols = FIRST + draws.draw_integers(1, most, self.num_symbols)
        totals, place = lengths * (1 + self.blanks), np.arange(most * (1 + self.blanks))
        order = draws.shuffle(2, len(place), place < totals[:, None])
        # The place of each number in the order; the first of them hold symbols.
        chosen = np.argsort(order, axis=1) < lengths[:, None]
        count = np.maximum(chosen.cumsum(axis=1) - 1, 0)
        question = np.where(chosen, np.take_along_axis(symbols, count, axis=1), FIRST + self.num_symbols)
        return join(question, totals, symbols, lengths)
