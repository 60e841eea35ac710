"""Pairs of ids in memory, gathered into padded batches."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_xt.core.batch import EvaluationPairs, PairBatch


class Rows(NamedTuple):
    """Rows of ids of different lengths, one after the other.

    Args:
        ids: of all rows.
        offsets: where each row starts, and at the end where the last one stops.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def joined(cls, ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> "Rows":
        """Rows of these lengths."""
        return cls(ids, np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Ids of each row."""
        return np.diff(self.offsets)

    def padded(self, numbers: NDArray[np.int64], pad: int) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """The rows of these numbers, padded on the right to the longest, and where they are real.

        Args:
            numbers: of the rows.
            pad: the id that fills up.
        """
        lengths = self.lengths[numbers]
        columns = np.arange(lengths.max())
        real = columns < lengths[:, None]
        index = np.where(real, self.offsets[numbers][:, None] + columns, 0)
        ids = np.where(real, self.ids[index], pad).astype(np.int64)
        return torch.from_numpy(ids), torch.from_numpy(real)


class PairTable(Dataset[PairBatch]):
    """Pairs of sources and targets, special ids included.

    Args:
        source: ids of the sources; none is empty.
        target: ids of the targets, the start id first; none is empty.
        references: the targets as text, as they stand in their file. None where the pairs are no text.
        pad: the id that fills up.
    """

    def __init__(self, source: Rows, target: Rows, references: list[str] | None = None, *, pad: int) -> None:
        self.source = source
        self.target = target
        self.references = references
        self.pad = pad

    def __len__(self) -> int:
        return len(self.source.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Ids of each pair, source and target: (pairs, 2)."""
        return np.stack([self.source.lengths, self.target.lengths], axis=1)

    @property
    def content_hash(self) -> str:
        """SHA-256 of the ids, as hex digest."""
        digest = hashlib.sha256()
        for side in (self.source, self.target):
            for array in side:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def __getitem__(self, pair: int) -> PairBatch:
        """One pair, as a batch of one."""
        return self.__getitems__([pair])

    def __getitems__(self, pairs: Sequence[int] | NDArray[np.int64]) -> PairBatch:
        """The pairs of a batch."""
        numbers = np.asarray(pairs, dtype=np.int64)
        src, src_mask = self.source.padded(numbers, self.pad)
        tgt, _ = self.target.padded(numbers, self.pad)
        return PairBatch(src, tgt, src_mask)


class TableBatches(Dataset[EvaluationPairs]):
    """Batches of a table for evaluation, by their number.

    Args:
        table: the pairs.
        batches: numbers of the pairs in each batch.
    """

    def __init__(self, table: PairTable, batches: Sequence[NDArray[np.int64]]) -> None:
        self.table = table
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> EvaluationPairs:
        """Batch `number`."""
        pairs = self.batches[number]
        texts = self.table.references
        references = None if texts is None else [texts[pair] for pair in pairs]
        return EvaluationPairs(*self.table.__getitems__(pairs), torch.from_numpy(pairs.copy()), references)
