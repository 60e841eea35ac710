from typing import Any

import numpy as np

from lightning_xt.data.pairs.symbol_sequences import FIRST
from lightning_xt.data.probes.base import PAD, Probe, ProbeRows
from lightning_xt.data.probes.probe_draws import Draws, Ids


class MQAR(Probe):
    """Multi-query associative recall: pairs of a key and a value, then the keys in another order, each with its value.

    Arora et al., 2023 (Zoology), https://arxiv.org/abs/2312.04927. There tokens without meaning separate the queries,
    and values are targets that are not read. Here each key is followed by its value, as in text, and is queried once.

    Args:
        num_keys: number of different keys, the ids from 2 up; those of a row are different.
        num_values: number of different values, the ids after the keys.
        probe: the options of `Probe`. The length is the number of pairs.

    Examples:
        >>> from lightning_xt import MQAR
        >>> data = MQAR(min_length=4, batch_size=2)
        >>> next(iter(data.train_dataloader())).tokens.shape
        torch.Size([2, 16])
    """

    def __init__(self, *, num_keys: int = 64, num_values: int = 64, **probe: Any) -> None:
        super().__init__(**probe)
        self.check("num_values", num_values, least=2)
        if num_keys < self.longest:
            raise ValueError(
                f"--data.num_keys {num_keys} is fewer than the {self.longest} different keys of the longest row; set "
                f"--data.num_keys {self.longest} or more, or a smaller --data.max_length or --data.test_length"
            )
        self.num_keys, self.num_values = num_keys, num_values

    @property
    def num_ids(self) -> int:
        return self.num_keys + self.num_values

    @property
    def options(self) -> tuple[Any, ...]:
        return (self.num_keys, self.num_values)

    def write(self, lengths: Ids, most: int, draws: Draws) -> ProbeRows:
        keys = FIRST + draws.shuffle(1, self.num_keys)[:, :most]
        values = FIRST + self.num_keys + draws.draw_integers(2, most, self.num_values)
        order = draws.shuffle(3, most, np.arange(most) < lengths[:, None])
        pairs = np.stack([keys, values], axis=-1)
        queries = np.take_along_axis(pairs, order[:, :, None], axis=1)
        # Both have the places of 2 * most ids, of which the queries follow the last pair of their row.
        place, end = np.arange(4 * most), 2 * lengths[:, None]
        before = pairs.reshape(len(lengths), -1)[:, np.minimum(place, 2 * most - 1)]
        after = np.take_along_axis(queries.reshape(len(lengths), -1), np.clip(place - end, 0, 2 * most - 1), axis=1)
        real = place < 2 * end
        ids = np.where(real, np.where(place < end, before, after), PAD)
        return ProbeRows(ids, 4 * lengths, real & (place >= end) & (place % 2 == 1))
