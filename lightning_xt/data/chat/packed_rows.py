"""Rows of several examples each."""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lightning_xt.core.batch import PackedBatch
from lightning_xt.data.chat.encoded_conversations import EncodedConversations
from lightning_xt.data.loading.shuffled_order import ShuffledOrder


def pack(lengths: NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Assign examples to rows, whole: longest first, each to the row with the least room that holds it.

    Best-fit decreasing; Ding et al., 2024, https://arxiv.org/abs/2404.10830, who pack text in this way.

    Args:
        lengths: tokens of each example, at most `capacity`.
        capacity: tokens of a row.

    Returns:
        The numbers of the examples of each row, ascending; the rows in the order of their first examples.
    """
    rows: list[list[int]] = []
    by_room: dict[int, list[int]] = {}
    # Sizes of room that some row has, ascending.
    rooms: list[int] = []
    for example in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[example])
        place = bisect_left(rooms, length)
        if place == len(rooms):
            row, room = len(rows), capacity
            rows.append([])
        else:
            room = rooms[place]
            row = by_room[room].pop()
            if not by_room[room]:
                del rooms[place]
        rows[row].append(example)
        if left := room - length:
            if not by_room.get(left):
                insort(rooms, left)
            by_room.setdefault(left, []).append(row)
    return sorted(map(sorted, rows))


class PackedRows(Dataset[PackedBatch]):
    """Conversations packed into rows, by number; a number past the last row gives one that does not count.

    Args:
        conversations: conversations of at most `seq_len + 1` ids.
        rows: numbers of the conversations of each row.
        seq_len: tokens that a row predicts; it holds one more.
        pad: id that fills a row.
        order: endless order of the rows. None = by number.
    """

    def __init__(
        self,
        conversations: EncodedConversations,
        rows: Sequence[Sequence[int]],
        *,
        seq_len: int,
        pad: int,
        order: ShuffledOrder | None = None,
    ) -> None:
        self.conversations, self.rows, self.seq_len, self.pad, self.order = conversations, rows, seq_len, pad, order

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fill(self) -> float:
        """Fraction of the tokens of all rows that are not padding."""
        return len(self.conversations.ids) / max(1, len(self.rows) * (self.seq_len + 1))

    def __getitem__(self, number: int) -> PackedBatch:
        """Return one row, as a batch of one."""
        return self.__getitems__([number])

    def __getitems__(self, numbers: Sequence[int]) -> PackedBatch:
        """Gather the rows of a batch."""
        found, shape = self.conversations, (len(numbers), self.seq_len + 1)
        tokens = np.full(shape, self.pad, dtype=np.int64)
        scored, documents = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.int64)
        for row, number in enumerate(numbers):
            place = number if self.order is None else self.order.locate(number)
            examples = self.rows[place] if place < len(self.rows) else ()
            end = 0
            for document, example in enumerate(examples):
                source = slice(found.offsets[example], found.offsets[example + 1])
                begin, end = end, end + int(source.stop - source.start)
                tokens[row, begin:end], scored[row, begin:end] = found.ids[source], found.scored[source]
                documents[row, begin:end] = document
            # Padding is one more document.
            documents[row, end:] = len(examples)
        return PackedBatch(*map(torch.from_numpy, (tokens, scored[:, 1:].copy(), documents[:, :-1].copy())))
