"""Ragged pairs become padded batches and nothing is lost."""

import numpy as np
import torch

from lightning_xt.data.pairs.pair_table import PairTable, RaggedIds, TableBatches


def rows(*lists):
    ids = np.asarray([each for row in lists for each in row], dtype=np.int32)
    return RaggedIds.from_lengths(ids, np.asarray([len(row) for row in lists], dtype=np.int64))


def table(references=None, pad=9):
    return PairTable(rows([3, 2], [2], [4, 5, 2]), rows([1, 7, 2], [1, 2], [1, 2]), references, pad=pad)


def test_a_batch_is_padded_to_its_longest():
    batch = table().__getitems__([2, 0])
    assert batch.src.tolist() == [[4, 5, 2], [3, 2, 9]]
    assert batch.tgt.tolist() == [[1, 2, 9], [1, 7, 2]]
    assert batch.src_mask.tolist() == [[True, True, True], [True, True, False]]
    assert (batch.src.dtype, batch.tgt.dtype, batch.src_mask.dtype) == (torch.int64, torch.int64, torch.bool)
    alone = table()[1]
    assert [each.tolist() for each in alone] == [[[2]], [[1, 2]], [[True]]]


def test_the_last_row_is_padded_without_reading_past_the_end():
    batch = PairTable(rows([3, 4], [5]), rows([1], [1, 2]), pad=0).__getitems__([0, 1])
    assert batch.src.tolist() == [[3, 4], [5, 0]]
    assert batch.tgt.tolist() == [[1, 0], [1, 2]]


def test_lengths():
    assert len(table()) == 3
    assert table().lengths.tolist() == [[2, 3], [1, 2], [3, 2]]


def test_the_hash_distinguishes_content():
    assert table().content_hash == table(["a", "b", "c"]).content_hash
    # The same ids in other rows.
    assert (
        table().content_hash
        != PairTable(rows([3], [2, 2], [4, 5, 2]), rows([1, 7, 2], [1, 2], [1, 2]), pad=9).content_hash
    )


def test_batches_for_evaluation_know_their_pairs():
    batches = TableBatches(table(["x", "y", "z"]), [np.asarray([1, 0]), np.asarray([2])])
    assert len(batches) == 2
    assert batches[0].index.tolist() == [1, 0] and batches[0].references == ["y", "x"]
    assert batches[0].src.tolist() == [[2, 9], [3, 2]]
    assert batches[1].index.tolist() == [2] and batches[1].references == ["z"]
    assert TableBatches(table(), [np.asarray([0])])[0].references is None
