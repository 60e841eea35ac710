"""Masks: every combination against a loop over rows, queries and keys."""

import itertools
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.where import Where

CPU = torch.device("cpu")
ROWS, N = 2, 7
LENGTHS = [7, 4]
DOCUMENTS = [[5, 5, 5, 2, 2, 9, 9], [1, 3, 3, 3, 3, 3, 4]]
PREFIX = [3, 2]
HIDDEN = [[False, True, False, False, True, False, False], [False, False, False, True, False, False, False]]


def sequence(n: int = N, *, causal: bool = True, lengths: list[int] | None = None, **inputs: object) -> Where:
    given = {name: torch.tensor(value) for name, value in inputs.items()}
    real = None if lengths is None else torch.tensor(lengths)
    return Where.from_sequence(n, causal=causal, inputs=Inputs(**given), lengths=real, device=CPU)


def in_document(row: int, t: int) -> int:
    """Return the position of a token in its document."""
    documents, start = DOCUMENTS[row], t
    while start > 0 and documents[start - 1] == documents[t]:
        start -= 1
    return t - start


def expected_mask(
    causal: bool, window: int | None, padded: bool, documents: bool, prefix: bool, hidden: bool, memory: int
) -> Tensor:
    mask = torch.zeros(ROWS, 1, N, memory + N, dtype=torch.bool)
    for b, i, j in itertools.product(range(ROWS), range(N), range(memory + N)):
        if j < memory:
            mask[b, 0, i, j] = True
            continue
        key = j - memory
        at_i, at_j = (in_document(b, i), in_document(b, key)) if documents else (i, key)
        see = not causal or at_j <= at_i or (prefix and at_j < PREFIX[b])
        see = see and (window is None or abs(at_i - at_j) < window)
        see = see and not (hidden and HIDDEN[b][key])
        see = see and not (documents and DOCUMENTS[b][i] != DOCUMENTS[b][key])
        if padded and (not causal or prefix):
            see = see and key < LENGTHS[b]
        mask[b, 0, i, j] = see
    return mask


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("memory", [0, 3])
def test_dense_is_the_mask_in_every_combination(causal: bool, memory: int) -> None:
    for window, *extras in itertools.product([None, 1, 3, 8], *[[False, True]] * 4):
        padded, documents, prefix, hidden = extras
        inputs = {
            **({"documents": DOCUMENTS} if documents else {}),
            **({"visible_prefix": PREFIX} if prefix else {}),
            **({"hidden_tokens": HIDDEN} if hidden else {}),
        }
        where = sequence(causal=causal, lengths=LENGTHS if padded else None, **inputs)
        where = where.limit_window(window).add_memory(memory)
        mask = expected_mask(causal, window, padded, documents, prefix, hidden, memory)
        dense = where.dense()
        case = f"{causal=} {window=} {padded=} {documents=} {prefix=} {hidden=} {memory=}"
        assert torch.equal(dense.expand(ROWS, -1, -1, -1), mask), case
        assert dense.shape[0] == where.rows, case

        triangle = torch.ones(N, memory + N, dtype=torch.bool).tril(memory)
        is_triangle = bool((mask == triangle).all())
        # The property may miss a true case (a prefix of one token, an unused hidden token), but is never wrongly true.
        assert not where.causal_after_memory or is_triangle, case
        plain = not (documents or prefix or hidden) and window in (None, 8)
        assert where.causal_after_memory == (causal and plain), case
        assert not where.plain_full or bool(mask.all()), case
        assert where.plain_full == (not causal and not (padded or documents or hidden) and window in (None, 8)), case


def test_the_mask_by_hand() -> None:
    # Window of 2 over documents of 2 and 3 tokens, one persistent key in front.
    where = sequence(5, documents=[[0, 0, 1, 1, 1]]).limit_window(2).add_memory(1)
    assert where.dense()[0, 0].int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 0, 1, 1],
    ]


def test_positions_restart_with_each_document() -> None:
    where = sequence(documents=DOCUMENTS)
    assert where.queries.tolist() == [[0, 1, 2, 0, 1, 0, 1], [0, 0, 1, 2, 3, 4, 0]]
    assert torch.equal(where.keys, where.queries)
    assert not where.aligned


def test_rows_are_shared_where_they_can_be() -> None:
    assert sequence().rows == 1
    assert sequence(lengths=LENGTHS).rows == 1, "causal attention never reaches padding on the right"
    assert sequence(causal=False, lengths=LENGTHS).rows == 2
    assert sequence(hidden_tokens=HIDDEN).rows == 2
    assert sequence(visible_prefix=PREFIX).rows == 2


def test_a_window_as_wide_as_the_sequence_is_ignored() -> None:
    assert sequence().limit_window(7).window is None
    assert sequence().limit_window(6).window == 6
    assert sequence().limit_window(None).causal_after_memory


CASES: dict[str, Callable[[], Where]] = {
    "causal": sequence,
    "full": lambda: sequence(causal=False),
    "window": lambda: sequence().limit_window(3),
    "padding": lambda: sequence(causal=False, lengths=LENGTHS),
    "documents": lambda: sequence(documents=DOCUMENTS),
    "prefix": lambda: sequence(visible_prefix=PREFIX),
    "hidden": lambda: sequence(hidden_tokens=HIDDEN),
    "memory": lambda: sequence().add_memory(3),
    "all": lambda: (
        sequence(documents=DOCUMENTS, visible_prefix=PREFIX, hidden_tokens=HIDDEN, lengths=LENGTHS)
        .limit_window(3)
        .add_memory(3)
    ),
}


@pytest.mark.parametrize("where", CASES.values(), ids=CASES)
def test_block_mask_agrees_with_dense(where: Callable[[], Where]) -> None:
    it = where()
    block, dense = it.block_mask(), it.dense()
    keys = it.memory + N
    assert block.seq_lengths == (N, keys)
    for b, i, j in itertools.product(range(it.rows), range(N), range(keys)):
        at = [torch.tensor(index) for index in (b, 0, i, j)]
        assert bool(block.mask_mod(*at)) == bool(dense[b, 0, i, j])
    # One block of 128 by 128 holds everything, and exists if anything is seen.
    assert block.to_dense().flatten().tolist() == [1] * it.rows


def test_across_a_context_every_query_sees_all_that_is_real() -> None:
    real = torch.tensor([[True, False, True], [True, True, True]])
    where = sequence(documents=DOCUMENTS).switch_to_context(3, real)
    assert where.dense().int().tolist() == [[[[1, 0, 1]] * N], [[[1, 1, 1]] * N]]
    assert where.keys.tolist() == [[0, 1, 2]]
    assert not where.plain_full
    assert sequence().switch_to_context(3, None).plain_full


def test_decoding_says_where_the_new_tokens_stand() -> None:
    cache = Cache(2, 11, calls=1)
    cache.begin(4)
    where = Where.from_cache(cache, Inputs())
    assert where.queries.tolist() == [[0, 1, 2, 3]] and where.causal_after_memory and where.end == 4
    cache.commit()
    cache.begin(1)
    where = Where.from_cache(cache, Inputs())
    assert where.queries.tolist() == [[4]] and where.plain_full and not where.causal_after_memory
    cache.commit()
    cache.begin(2)
    where = Where.from_cache(cache, Inputs()).switch_to_cache(torch.arange(7)[None], None)
    assert not where.plain_full
    assert where.dense()[0, 0].int().tolist() == [[1, 1, 1, 1, 1, 1, 0], [1] * 7]


def test_decoding_rows_of_different_lengths() -> None:
    cache = Cache(2, 11, calls=1)
    cache.begin(3, torch.tensor([3, 1]))
    cache.commit()
    cache.begin(1)
    where = Where.from_cache(cache, Inputs()).switch_to_cache(torch.arange(4)[None], None)
    assert where.queries.tolist() == [[3], [1]] and not where.plain_full
    assert where.dense().int().tolist() == [[[[1, 1, 1, 1]]], [[[1, 1, 0, 0]]]]


def test_nobody_sees_an_empty_slot() -> None:
    cache = Cache(1, 11, calls=1)
    cache.begin(1)
    keys = torch.tensor([[0, -3, -2, -1]])
    assert Where.from_cache(cache, Inputs()).switch_to_cache(keys, 3).dense().int().tolist() == [[[[1, 0, 0, 0]]]]
    prefixed = Where.from_cache(cache, Inputs(visible_prefix=torch.tensor([2]))).switch_to_cache(keys, 3)
    assert prefixed.dense().int().tolist() == [[[[1, 0, 0, 0]]]]


@pytest.mark.parametrize("name", ["documents", "hidden_tokens"])
def test_refuses_step_by_step_what_describes_whole_sequences(name: str) -> None:
    cache = Cache(1, 11, calls=1)
    cache.begin(2)
    values = {"documents": torch.zeros(1, 2, dtype=torch.long), "hidden_tokens": torch.zeros(1, 2, dtype=torch.bool)}
    message = f"Inputs({name}=...) describes whole sequences; omit it when decoding with a cache"
    with pytest.raises(ValueError, match=re.escape(message)):
        Where.from_cache(cache, Inputs(**{name: values[name]}))


@pytest.mark.parametrize("where", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("queries", "keys"), [(3, 5), (0, 5), (3, 0)])
def test_padding_repeats_the_last_query_and_hides_keys(where: Callable[[], Where], queries: int, keys: int) -> None:
    it = where()
    dense, padded = it.dense(), it.pad(queries, keys).dense()
    assert torch.equal(padded[..., :N, : dense.shape[-1]], dense)
    assert torch.equal(padded[..., N:, : dense.shape[-1]], dense[..., -1:, :].expand(-1, -1, queries, -1))
    assert padded.shape[-2:] == (N + queries, dense.shape[-1] + keys) and not padded[..., dense.shape[-1] :].any()


def test_padding_of_what_a_row_sees_whole_is_hidden_too() -> None:
    cache = Cache(1, 11, calls=1)
    for n in (4, 1):
        cache.begin(n)
        where = Where.from_cache(cache, Inputs()).switch_to_cache(torch.arange(cache.extent.end)[None], None)
        cache.commit()
    assert where.plain_full and not where.pad(0, 2).plain_full
    assert where.pad(0, 2).dense().tolist() == [[[[True] * 5 + [False] * 2]]]
