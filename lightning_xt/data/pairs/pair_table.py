"""Pairs of token sequences in memory, gathered into padded batches."""

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
from lightning_xt.data.prompt_files import number_prompts


class RaggedIds(NamedTuple):
    """Rows of ids of different lengths in one array.

    Args:
        ids: the ids of all rows, one row after another.
        offsets: start of each row, and the end of the last.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def from_lengths(cls, ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> "RaggedIds":
        """Build the rows from their lengths."""
        return cls(ids, np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of ids of each row."""
        return np.diff(self.offsets)

    def pad(self, numbers: NDArray[np.int64], pad: int) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """Gather numbered rows, padded on the right to the longest, and the mask of the ids that are not padding."""
        lengths = self.lengths[numbers]
        columns = np.arange(lengths.max())
        real = columns < lengths[:, None]
        index = np.where(real, self.offsets[numbers][:, None] + columns, 0)
        ids = np.where(real, self.ids[index], pad).astype(np.int64)
        return torch.from_numpy(ids), torch.from_numpy(real)


class PairTable(Dataset[PairBatch]):
    """Pairs of sources and targets, special ids included.

    Args:
        source: ids of the sources, at least one each.
        target: ids of the targets, the start id first.
        references: the targets as text, unchanged from their file. None if the pairs are not text.
        pad: the padding id.
    """

    def __init__(self, source: RaggedIds, target: RaggedIds, references: list[str] | None = None, *, pad: int) -> None:
        self.source = source
        self.target = target
        self.references = references
        self.pad = pad

    def __len__(self) -> int:
        return len(self.source.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of ids of each source and target: (pairs, 2)."""
        return np.stack([self.source.lengths, self.target.lengths], axis=1)

    @property
    def content_hash(self) -> str:
        """SHA-256 of the ids, as a hex digest."""
        digest = hashlib.sha256()
        for side in (self.source, self.target):
            for array in side:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def __getitem__(self, pair: int) -> PairBatch:
        """Return one pair, as a batch of one."""
        return self.__getitems__([pair])

    def __getitems__(self, pairs: Sequence[int] | NDArray[np.int64]) -> PairBatch:
        """Gather the pairs of a batch."""
        numbers = np.asarray(pairs, dtype=np.int64)
        src, src_mask = self.source.pad(numbers, self.pad)
        tgt, _ = self.target.pad(numbers, self.pad)
        return PairBatch(src, tgt, src_mask)


class TableBatches(Dataset[EvaluationPairs]):
    """Evaluation batches of a table, by number; each is an array of the numbers of its pairs.

    Args:
        table: the pairs.
        batches: the numbers of each batch.
        sources: the sources as text, unchanged from their file. None if the pairs are not text.
    """

    def __init__(
        self, table: PairTable, batches: Sequence[NDArray[np.int64]], sources: Sequence[str] | None = None
    ) -> None:
        self.table = table
        self.batches = batches
        self.sources = None if sources is None else number_prompts(sources)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> EvaluationPairs:
        """Gather batch `number`."""
        pairs = self.batches[number]
        texts, sources = self.table.references, self.sources
        return EvaluationPairs(
            *self.table.__getitems__(pairs),
            torch.from_numpy(pairs.copy()),
            None if texts is None else [texts[pair] for pair in pairs],
            None if sources is None else [sources[pair]["prompt"] for pair in pairs],
            None if sources is None else [sources[pair].get("repeat", 0) for pair in pairs],
        )
