from typing import Any

import numpy as np

from lightning_xt.data.pairs.symbol_sequences import FIRST
from lightning_xt.data.probes.base import Probe, ProbeRows, join
from lightning_xt.data.probes.probe_draws import Draws, Ids


class Dyck(Probe):
    """Questions that begin a balanced sequence of brackets of several kinds, whose answer closes those still open.

    Yao et al., 2021, https://arxiv.org/abs/2105.11115: bounded hierarchical languages, Dyck-(k, D), where models are
    asked for the brackets of the whole sequence. Here the answer has one solution: the open brackets, last one first,
    then an id that ends the answer.

    The ids from 2 up are the opening brackets of each kind, then the closing ones, then the end of the answer. At each
    step a bracket opens or closes with equal chance, unless the depth allows only one.

    Args:
        kinds: number of kinds of brackets.
        max_depth: most brackets that are open at once.
        probe: the options of `Probe`. The length is the number of brackets of the question.

    Examples:
        >>> from lightning_xt import Dyck
        >>> data = Dyck(min_length=4, max_depth=3, batch_size=2)
        >>> next(iter(data.train_dataloader())).tokens.shape
        torch.Size([2, 9])
    """

    def __init__(self, *, kinds: int = 4, max_depth: int = 8, **probe: Any) -> None:
        super().__init__(**probe)
        self.check("kinds", kinds, least=1)
        self.check("max_depth", max_depth, least=1)
        self.kinds, self.max_depth = kinds, max_depth

    @property
    def num_ids(self) -> int:
        return 2 * self.kinds + 1

    @property
    def options(self) -> tuple[Any, ...]:
        return (self.kinds, self.max_depth)

    def write(self, lengths: Ids, most: int, draws: Draws) -> ProbeRows:
        rows, every = len(lengths), np.arange(len(lengths))
        opens, kinds = draws.draw_integers(1, most, 2) == 1, draws.draw_integers(2, most, self.kinds)
        # Kinds of the open brackets, the outermost one at 0.
        stack, depth = np.zeros((rows, self.max_depth), dtype=np.int64), np.zeros(rows, dtype=np.int64)
        question = np.zeros((rows, most), dtype=np.int64)
        for step in range(most):
            opening = (depth == 0) | (opens[:, step] & (depth < self.max_depth))
            real = step < lengths
            top = stack[every, np.maximum(depth - 1, 0)]
            question[:, step] = np.where(opening, kinds[:, step], self.kinds + top)
            pushed = opening & real
            stack[every[pushed], depth[pushed]] = kinds[pushed, step]
            depth += np.where(real, np.where(opening, 1, -1), 0)
        place = np.arange(self.max_depth + 1)
        closed = np.take_along_axis(stack, np.clip(depth[:, None] - 1 - place, 0, self.max_depth - 1), axis=1)
        answer = np.where(place < depth[:, None], self.kinds + closed, 2 * self.kinds)
        return join(FIRST + question, lengths, FIRST + answer, depth + 1)
