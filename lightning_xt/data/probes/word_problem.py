from itertools import combinations, permutations
from typing import Any, Literal

import numpy as np

from lightning_xt.data.pairs.symbol_sequences import FIRST
from lightning_xt.data.probes.base import Probe, ProbeRows, join
from lightning_xt.data.probes.probe_draws import Draws, Ids


class WordProblem(Probe):
    """Questions of permutations of a few objects, whose answer is the order of the objects after all of them.

    Merrill, Petty and Sabharwal, 2024, https://arxiv.org/abs/2404.08819: the word problem of the symmetric group, which
    is state tracking and, with 5 objects (S5), as hard as any problem of a fixed depth of logic that grows with the
    logarithm of the length (NC1). There questions are of all permutations and the state is asked for at each token.
    Here only the last one is written: a state in the row could be read instead of tracked.

    The ids from 2 up are the permutations: for swaps (0 1), (0 2), ..., (1 2), ..., else all in the order of
    `itertools.permutations`, where g places object g[i] of the order before at place i. The objects follow. Of
    `exact_match`, chance is 1 in 120 with 5 objects; of `token_accuracy`, it is 0.46, because the last object follows
    from the others. With swaps it is 1 in 60 and 0.56, because an odd number of swaps gives odd orders only; after one
    or two swaps there are few orders, so that chance is 1 in 10.

    Args:
        objects: number of objects, 2 to 6.
        permutations: those in the questions: `swaps` of two objects, or `all`.
        probe: the options of `Probe`. The length is the number of permutations.

    Examples:
        >>> from lightning_xt import WordProblem
        >>> data = WordProblem(min_length=4, batch_size=2)
        >>> next(iter(data.train_dataloader())).tokens.shape
        torch.Size([2, 10])
    """

    def __init__(self, *, objects: int = 5, permutations: Literal["swaps", "all"] = "swaps", **probe: Any) -> None:
        super().__init__(**probe)
        self.check("objects", objects, least=2, most=6)
        if permutations not in ("swaps", "all"):
            raise ValueError(
                f"--data.permutations must be swaps or all, not {permutations}; set --data.permutations all"
            )
        self.objects, self.permutations = objects, permutations
        self.moves = _list_swaps(objects) if permutations == "swaps" else _list_all(objects)

    @property
    def num_ids(self) -> int:
        return len(self.moves) + self.objects

    @property
    def options(self) -> tuple[Any, ...]:
        return (self.objects, self.permutations)

    def write(self, lengths: Ids, most: int, draws: Draws) -> ProbeRows:
        chosen = draws.draw_integers(1, most, len(self.moves))
        order = np.tile(np.arange(self.objects), (len(lengths), 1))
        for step in range(most):
            moved = np.take_along_axis(order, self.moves[chosen[:, step]], axis=1)
            order = np.where((step < lengths)[:, None], moved, order)
        answer = FIRST + len(self.moves) + order
        return join(FIRST + chosen, lengths, answer, np.full_like(lengths, self.objects))


def _list_swaps(objects: int) -> Ids:
    found = np.tile(np.arange(objects), (objects * (objects - 1) // 2, 1))
    for row, (i, j) in zip(found, combinations(range(objects), 2), strict=True):
        row[[i, j]] = j, i
    return found


def _list_all(objects: int) -> Ids:
    return np.asarray(list(permutations(range(objects))))
