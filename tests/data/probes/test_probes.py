"""Probes: each against an independent solution of its task, and the laws of all: seeds, splits, widths, ranges."""

import re
from itertools import islice

import numpy as np
import pytest
import torch
from catalogue import list_variants

from lightning_xt.data.probes.base import Probe
from lightning_xt.data.probes.dyck import Dyck
from lightning_xt.data.probes.mqar import MQAR
from lightning_xt.data.probes.parity import Parity
from lightning_xt.data.probes.selective_copy import SelectiveCopy
from lightning_xt.data.probes.sorting import Sorting
from lightning_xt.data.probes.word_problem import WordProblem

LENGTHS = {"min_length": 1, "max_length": 7, "test_length": 11, "validation_size": 40, "test_size": 30}


def recall(question: list[int], _: Probe) -> None:
    raise AssertionError("its rows are not questions before answers")


def count_parity(question: list[int], _: Parity) -> list[int]:
    return [2 + question.count(3) % 2]


def keep_symbols(question: list[int], data: SelectiveCopy) -> list[int]:
    blank = 2 + data.num_symbols
    assert question.count(blank) == data.blanks * (len(question) - question.count(blank))
    return [symbol for symbol in question if symbol != blank]


def order_symbols(question: list[int], _: Sorting) -> list[int]:
    return sorted(question)


def apply_swaps(question: list[int], data: WordProblem) -> list[int]:
    """Swap cups one after another."""
    swaps = [(i, j) for i in range(data.objects) for j in range(i + 1, data.objects)]
    cups = list(range(data.objects))
    for number in question:
        i, j = swaps[number - 2]
        cups[i], cups[j] = cups[j], cups[i]
    return [2 + len(swaps) + cup for cup in cups]


def close_brackets(question: list[int], data: Dyck) -> list[int]:
    """Match brackets by a stack."""
    stack = []
    for bracket in question:
        if bracket < 2 + data.kinds:
            stack.append(bracket)
        else:
            assert stack.pop() + data.kinds == bracket
        assert len(stack) <= data.max_depth
    return [bracket + data.kinds for bracket in reversed(stack)] + [2 + 2 * data.kinds]


PROBES = {
    MQAR: (recall, {"num_keys": 11, "num_values": 3}),
    Parity: (count_parity, {}),
    SelectiveCopy: (keep_symbols, {"num_symbols": 5, "blanks": 2}),
    Sorting: (order_symbols, {"num_symbols": 5}),
    WordProblem: (apply_swaps, {"objects": 5}),
    Dyck: (close_brackets, {"kinds": 3, "max_depth": 4}),
}
SOLVED = [pytest.param(kind, id=kind.__name__) for kind in PROBES if kind is not MQAR]


def make(kind, **options):
    return kind(**{**LENGTHS, **PROBES[kind][1], **options})


def list_rows(batch):
    """Return the ids of each row without padding, and which of them are scored."""
    assert batch.tokens.dtype == torch.int64 and batch.scored.dtype == torch.bool and batch.documents is None
    found = []
    for tokens, scored in zip(batch.tokens, batch.scored, strict=True):
        ids = tokens[tokens != 0].tolist()
        assert tokens[: len(ids)].tolist() == ids, "padding is on the right"
        found.append((ids, [False, *scored.tolist()[: len(ids) - 1]]))
        assert not scored[len(ids) - 1 :].any()
    return found


def take(data, count=1):
    return list(islice(data.train_dataloader(), count))


def collect(data, split):
    batches = data.test_dataloader() if split == "test" else data.val_dataloader()
    return [row for batch in batches for row in list_rows(batch)]


def test_every_probe_is_tested():
    assert set(list_variants(Probe)) == set(PROBES)


@pytest.mark.parametrize("kind", SOLVED)
def test_answers(kind):
    solve, _ = PROBES[kind]
    data = make(kind, batch_size=300)
    rows = [*list_rows(take(data)[0]), *collect(data, "test")]
    lengths = set()
    for ids, scored in rows:
        end = ids.index(1)
        assert ids[end + 1 :] == solve(ids[:end], data)
        assert scored == [place > end for place in range(len(ids))]
        lengths.add(end // (1 + getattr(data, "blanks", 0)))
    assert lengths == {*range(1, 8), 11}


def test_the_word_problem_of_all_permutations():
    data = make(WordProblem, objects=3, permutations="all", batch_size=50)
    # In the order of a dictionary, written by hand.
    moves = ["012", "021", "102", "120", "201", "210"]
    for ids, _ in list_rows(take(data)[0]):
        end, order = ids.index(1), "012"
        for number in ids[:end]:
            order = "".join(order[int(place)] for place in moves[number - 2])
        assert [each - 8 for each in ids[end + 1 :]] == [int(each) for each in order]
    assert data.vocab["target"] == 2 + 6 + 3


def test_queries_of_mqar_have_the_values_of_their_keys():
    data = make(MQAR, batch_size=300)
    found = set()
    for ids, scored in (*list_rows(take(data)[0]), *collect(data, "test")):
        pairs = list(zip(ids[::2], ids[1::2], strict=True))
        given, queried = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
        assert sorted(given) == sorted(queried) and len(dict(given)) == len(given)
        assert all(2 <= key < 13 <= value < 16 for key, value in given)
        assert scored == [place >= len(ids) // 2 and place % 2 == 1 for place in range(len(ids))]
        found.add(len(given))
        found.add(("moved", given != queried))
    assert found == {*range(1, 8), 11, ("moved", True), ("moved", False)}


def test_brackets_reach_every_depth():
    data = make(Dyck, batch_size=300, max_length=30)
    assert {len(ids) - ids.index(1) - 2 for ids, _ in list_rows(take(data)[0])} == set(range(5))


@pytest.mark.parametrize("kind", PROBES, ids=lambda kind: kind.__name__)
def test_no_row_is_in_two_splits(kind):
    # Few different rows, so that the same ones are drawn again and again.
    data = make(kind, max_length=3, test_length=None, batch_size=2000, validation_size=300, test_size=300)
    other = make(kind, max_length=3, test_length=None, batch_size=1000, seed=1)
    train = {tuple(ids) for each in (data, other) for batch in take(each) for ids, _ in list_rows(batch)}
    test, validation = ({tuple(ids) for ids, _ in collect(data, split)} for split in ("test", "validation"))
    assert train and validation and test
    assert not train & validation and not train & test and not validation & test


@pytest.mark.parametrize("kind", PROBES, ids=lambda kind: kind.__name__)
def test_a_row_is_a_function_of_seed_and_number(kind):
    data = make(kind, batch_size=20)
    whole = data.draw("train", np.arange(20))
    for number in (0, 7, 19):
        alone = data.draw("train", np.asarray([number]))
        assert all(np.array_equal(one[0], many[number]) for one, many in zip(alone, whole, strict=True))
    assert torch.equal(take(make(kind, batch_size=20))[0].tokens, torch.from_numpy(whole.ids))
    assert not torch.equal(take(make(kind, batch_size=20, seed=1))[0].tokens, torch.from_numpy(whole.ids))
    later = make(kind, batch_size=5)
    later.load_state_dict({"samples_seen": 10, "hash": later.content_hash})
    assert torch.equal(take(later)[0].tokens, torch.from_numpy(whole.ids[10:15]))
    assert later.samples_after(10, 2) == 20 and "5 rows a step" in later.describe_size(1)


@pytest.mark.parametrize("kind", PROBES, ids=lambda kind: kind.__name__)
def test_ids_are_those_of_the_vocabulary(kind):
    data = make(kind, batch_size=500)
    (batch,) = take(data)
    used = set(batch.tokens.unique().tolist()) | {1}
    assert used == set(range(data.vocab["target"]))
    assert data.vocab == {"source": len(used), "target": len(used), "pad": 0} | dict.fromkeys(
        ("start", "end", "separator")
    )
    assert data.tokenizer.encode("2 1") == [2, 1] and data.tokenizer.vocab_size == len(used)
    data.setup("fit")
    assert data.trained_length == batch.tokens.shape[1] - 1


def test_rows_of_several_processes_count_once():
    data = make(Sorting, validation_size=7, eval_batch_size=3)
    whole = [ids for ids, _ in collect(data, "validation")]
    found = []
    for rank in range(2):
        (batches,) = [list(data.for_process(rank, 2).val_dataloader())]
        assert [len(batch.tokens) for batch in batches] == [3, 1]
        found += [ids for batch in batches for ids, scored in list_rows(batch) if any(scored)]
    assert sorted(found) == sorted(whole) and len(whole) == 7


def test_hashes_distinguish_options():
    hashes = {make(Sorting, **each).content_hash for each in ({}, {"num_symbols": 6}, {"max_length": 8}, {"seed": 2})}
    assert len(hashes) == 4
    assert make(Sorting, test_length=5).content_hash in hashes


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Parity, {"min_length": 0}, "Parity has --data.min_length 0, which must be at least 1"),
        (Parity, {"max_length": 3, "min_length": 4}, "--data.max_length must be at least --data.min_length (4), not 3"),
        (Parity, {"test_length": 0}, "Parity has --data.test_length 0, which must be at least 1"),
        (Parity, {"test_size": 0}, "Parity has --data.test_size 0, which must be at least 1"),
        (Parity, {"validation_size": -1}, "Parity has --data.validation_size -1, which must be at least 0"),
        (Parity, {"batch_size": 0}, "Parity has --data.batch_size 0, which must be at least 1"),
        (Parity, {"eval_batch_size": 0}, "Parity has --data.eval_batch_size 0, which must be at least 1"),
        (Parity, {"seed": -1}, "--data.seed must be from 0 to"),
        (Sorting, {"num_symbols": 1}, "Sorting has --data.num_symbols 1, which must be at least 2"),
        (SelectiveCopy, {"num_symbols": 1}, "SelectiveCopy has --data.num_symbols 1, which must be at least 2"),
        (SelectiveCopy, {"blanks": -1}, "SelectiveCopy has --data.blanks -1, which must be at least 0"),
        (MQAR, {"num_values": 1}, "MQAR has --data.num_values 1, which must be at least 2"),
        (MQAR, {"num_keys": 10}, "--data.num_keys 10 is fewer than the 11 different keys of the longest row; set"),
        (WordProblem, {"objects": 7}, "WordProblem has --data.objects 7, which must be from 2 to 6"),
        (WordProblem, {"permutations": "some"}, "--data.permutations must be swaps or all, not some; set"),
        (Dyck, {"kinds": 0}, "Dyck has --data.kinds 0, which must be at least 1"),
        (Dyck, {"max_depth": 0}, "Dyck has --data.max_depth 0, which must be at least 1"),
    ],
)
def test_options_out_of_range(kind, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(kind, **options)


def test_stages_without_rows():
    with pytest.raises(ValueError, match="--data Parity has no prompts; use lightning-xt generate RUN --prompts FILE"):
        make(Parity).setup("predict")
    none = make(Parity, validation_size=0)
    none.setup("fit")
    assert none.val_dataloader() == []
    with pytest.raises(ValueError, match=r"--data Parity has no validation split; give one with --data\.validation_s"):
        none.setup("validate")
    few = Dyck(kinds=1, max_depth=1, min_length=1, max_length=2)
    with pytest.raises(ValueError, match=r"--data Dyck has too few rows of length 1 to 2 to leave any for the valid"):
        few.setup("fit")
