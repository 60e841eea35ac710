"""Items of a dataset that may draw random numbers."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from lightning_xt.data.loading.isolated_rng import IsolatedRng, seed_generators
from lightning_xt.data.loading.random_numbers import split_mix_64
from lightning_xt.data.loading.shuffled_order import ShuffledOrder


class SeededItems(Dataset[Any]):
    """Items of a dataset, each read with the generators of torch, numpy and Python seeded by its number for it alone.

    So what a dataset draws, such as a crop, is a function of the seed and the number, in every process and worker, and
    the random numbers of the model stay as they are.

    Args:
        items: the dataset.
        seed: chooses the seeds of the items.
        order: endless order in which the items are numbered. None = as in the dataset.
    """

    def __init__(self, items: Any, seed: int, order: ShuffledOrder | None = None) -> None:
        self.items, self.seed, self.order = items, seed, order

    def __getitem__(self, number: int) -> Any:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        found = []
        with IsolatedRng(0).use():
            for number, seed in zip(numbers, split_mix_64(self.seed, numbers).tolist(), strict=True):
                seed_generators(seed)
                found.append(self.items[number if self.order is None else self.order.locate(number)])
        return found
