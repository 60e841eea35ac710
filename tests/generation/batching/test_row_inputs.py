"""Inputs of rows are joined and split again without change."""

import re
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.memories import Memories
from lightning_xt.generation.batching.row_inputs import select_row, stack_inputs, step_inputs
from lightning_xt.generation.requests import Request


def numbers(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).view(shape).float() + 1


def context(m: int, real: int | None = None) -> Inputs:
    return Inputs(context=numbers(1, m, 2), context_mask=None if real is None else torch.arange(m)[None] < real)


def list_given(inputs: Inputs) -> set[str]:
    return {field.name for field in fields(inputs) if getattr(inputs, field.name) is not None}


def test_nothing_stays_nothing() -> None:
    assert select_row(None, 3) is None and step_inputs(None) is None
    assert Request(prompt=torch.tensor([1]), max_new_tokens=1).num_soft_tokens == 0
    assert stack_inputs([None, None]) is None and stack_inputs([Inputs(), None]) is None
    assert Inputs().num_soft_tokens == 0


def test_a_row_of_a_batch() -> None:
    batch = Inputs(
        condition=numbers(3, 4),
        context=numbers(3, 5, 2),
        context_mask=numbers(3, 5) % 2 == 0,
        types=torch.arange(21).view(3, 7),
        visible_prefix=torch.tensor([1, 2, 3]),
    )
    row = select_row(batch, 1, 4)
    assert list_given(row) == list_given(batch)
    for name in ("condition", "context", "context_mask", "visible_prefix"):
        assert torch.equal(getattr(row, name), getattr(batch, name)[1:2])
    assert row.types.tolist() == [[7, 8, 9, 10]]
    assert select_row(batch, 1).types.tolist() == [list(range(7, 14))]
    prefix = select_row(Inputs(prefix=numbers(2, 3, 4)), 1, 2)
    assert torch.equal(prefix.prefix, numbers(2, 3, 4)[1:]), "soft tokens do not count in a prompt's length"


def test_rows_of_a_batch_make_it_again() -> None:
    batch = Inputs(
        condition=numbers(3, 4),
        context=numbers(3, 5, 2),
        context_mask=numbers(3, 5) % 2 == 0,
        types=torch.arange(21).view(3, 7),
        visible_prefix=torch.tensor([1, 2, 3]),
    )
    again = stack_inputs([select_row(batch, row) for row in range(3)])
    assert list_given(again) == list_given(batch)
    assert all(torch.equal(getattr(again, name), getattr(batch, name)) for name in list_given(batch))


def test_contexts_of_one_width_need_no_mask() -> None:
    together = stack_inputs([context(3), context(3)])
    assert together.context_mask is None
    assert torch.equal(together.context, numbers(1, 3, 2).repeat(2, 1, 1))


def test_contexts_of_different_widths_are_masked_where_they_are_padded() -> None:
    together = stack_inputs([context(2), context(4), context(1)])
    assert together.context.shape == (3, 4, 2)
    assert together.context_mask.tolist() == [[True] * 2 + [False] * 2, [True] * 4, [True] + [False] * 3]
    assert torch.equal(together.context[0, :2], numbers(2, 2)) and together.context[0, 2:].abs().max() == 0


@pytest.mark.parametrize("masked_first", [True, False])
def test_a_row_with_a_mask_next_to_one_without(masked_first: bool) -> None:
    rows, masks = [context(3, 1), context(2)], [[True, False, False], [True, True, False]]
    if not masked_first:
        rows, masks = rows[::-1], masks[::-1]
    assert stack_inputs(rows).context_mask.tolist() == masks
    same = [context(3, 1), context(3)]
    assert stack_inputs(same).context_mask.tolist() == [[True, False, False], [True] * 3]
    assert same[1].context_mask is None, "what was given is left as it was"


def test_types_are_padded_and_conditions_are_not() -> None:
    rows = [Inputs(types=torch.tensor([types]), condition=numbers(1, 3)) for types in ([1, 2, 3], [4])]
    together = stack_inputs(rows)
    assert together.types.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert together.condition.shape == (2, 3)


def test_one_row_is_not_the_callers_own() -> None:
    mine = context(3, 2)
    together = stack_inputs([mine])
    together.context.zero_()
    together.context_mask.zero_()
    assert torch.equal(mine.context, numbers(1, 3, 2)) and mine.context_mask.tolist() == [[True, True, False]]


def test_a_step_keeps_the_condition_and_the_last_type() -> None:
    inputs = Inputs(
        condition=numbers(2, 3),
        context=numbers(2, 3, 2),
        context_mask=numbers(2, 3) > 0,
        types=torch.tensor([[1, 2], [3, 4]]),
        visible_prefix=torch.tensor([1, 2]),
    )
    step = step_inputs(inputs)
    assert list_given(step) == {"condition", "types"}
    assert step.types.tolist() == [[2], [4]] and torch.equal(step.condition, inputs.condition)
    assert list_given(step_inputs(Inputs(prefix=numbers(2, 3, 4)))) == set()


def test_soft_tokens_are_counted() -> None:
    inputs = Inputs(prefix=numbers(2, 3, 4))
    request = Request(prompt=torch.tensor([1, 2]), max_new_tokens=5, inputs=inputs)
    assert (inputs.num_soft_tokens, request.num_soft_tokens, request.prompt_length, request.total_length) == (
        3,
        3,
        5,
        10,
    )


def test_memories_are_refused() -> None:
    inputs = Inputs(memories=Memories((numbers(1, 2, 3),)))
    rule = r"^Inputs\(memories=\.\.\.\) is for forwards, not for requests; omit it, and begin the prompt with the re"
    for read in (lambda: select_row(inputs, 0), lambda: stack_inputs([inputs])):
        with pytest.raises(ValueError, match=rule):
            read()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([context(2), None], "one has context and another none; give all of them the same, or set batch to 1"),
        ([None, context(2, 1)], "one has none and another context and context_mask; give all"),
        (
            [context(2), Inputs(condition=numbers(1, 3), context=numbers(1, 2, 2))],
            "one has context and another condition and context",
        ),
    ],
    ids=["first", "second", "both"],
)
def test_refuses_rows_with_different_inputs(rows: list[Inputs | None], message: str) -> None:
    start = "rows that are decoded together need the same inputs, but "
    with pytest.raises(ValueError, match=re.escape(start + message)):
        stack_inputs(rows)
