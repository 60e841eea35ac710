from typing import Any

import numpy as np

from lightning_xt.data.pairs.symbol_sequences import FIRST
from lightning_xt.data.probes.base import Probe, ProbeRows, join
from lightning_xt.data.probes.probe_draws import Draws, Ids


class Parity(Probe):
    """Questions of random bits, whose answer is the parity of their sum: state tracking with two states.

    Merrill, Petty and Sabharwal, 2024, https://arxiv.org/abs/2404.08819, who ask for the state at each token. Here only
    the last one is written: a state in the row could be read instead of tracked.

    Ids 2 and 3 are the bits 0 and 1. Chance is 0.5 of both metrics.

    Args:
        probe: the options of `Probe`. The length is the number of bits.

    Examples:
        >>> from lightning_xt import Parity
        >>> data = Parity(min_length=4, batch_size=2)
        >>> next(iter(data.train_dataloader())).tokens.shape
        torch.Size([2, 6])
    """

    def __init__(self, **probe: Any) -> None:
        super().__init__(**probe)

    @property
    def num_ids(self) -> int:
        return 2

    @property
    def options(self) -> tuple[Any, ...]:
        return ()

    def write(self, lengths: Ids, most: int, draws: Draws) -> ProbeRows:
        bits = draws.draw_integers(1, most, 2)
        parity = (bits * (np.arange(most) < lengths[:, None])).sum(axis=1, keepdims=True) % 2
        return join(FIRST + bits, lengths, FIRST + parity, np.ones_like(lengths))
