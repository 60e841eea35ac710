"""The order of the items of a data set, held in memory or computed item by item."""

import sys

import numpy as np
import pytest

from lightning_xt.data.loading import shuffled_order
from lightning_xt.data.loading.shuffled_order import ShuffledOrder


@pytest.mark.parametrize("most", [2**24, 0], ids=["sorted", "computed"])
@pytest.mark.parametrize("size", [1, 2, 17, 64, 65])
def test_every_epoch_has_each_item_once_in_another_order(monkeypatch, most, size):
    monkeypatch.setattr(shuffled_order, "MOST_SORTED", most)
    order, again = ShuffledOrder(size, 3), ShuffledOrder(size, 3)
    epochs = [[order.locate(epoch * size + place) for place in range(size)] for epoch in range(3)]
    assert all(sorted(epoch) == [*range(size)] for epoch in epochs)
    assert [again.locate(2 * size + place) for place in range(size)] == epochs[2]
    if size > 2:
        others = [ShuffledOrder(size, 4).locate(place) for place in range(size)]
        assert len({tuple(each) for each in (*epochs, others)}) == 4


def test_the_order_of_many_items_takes_no_memory(monkeypatch):
    order, size = ShuffledOrder(10**12, 7), 10**12
    samples = [order.locate(size + place) for place in range(4000)]
    assert len(set(samples)) == 4000 and sys.getsizeof(order._order[1]) < 1000
    # Tenths of the data have equal numbers; a chi-squared of 9 degrees of freedom is below 28 with 0.999.
    counts = np.bincount(np.asarray(samples) // 10**11, minlength=10)
    assert ((counts - 400) ** 2).sum() / 400 < 28
    assert abs(np.corrcoef(samples[1:], samples[:-1])[0, 1]) < 0.06
    # The place of an item is as likely as any other.
    monkeypatch.setattr(shuffled_order, "MOST_SORTED", 0)
    places = np.asarray([[ShuffledOrder(5, seed).locate(place) for place in range(5)] for seed in range(3000)])
    for column in places.T:
        # 4 degrees of freedom.
        assert ((np.bincount(column, minlength=5) - 600) ** 2).sum() / 600 < 19
