"""Inputs of single rows, put together for a batch and told apart again."""

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor
from torch.nn import functional

from lightning_xt.core.inputs import Inputs


def select_row(inputs: Inputs | None, row: int, length: int | None = None) -> Inputs | None:
    """The inputs of one row.

    Args:
        inputs: of a batch.
        row: which.
        length: tokens the row has. None = as many as its types.
    """
    if inputs is None:
        return None
    given = {name: value[row : row + 1] for name, value in _given(inputs).items()}
    if "types" in given:
        given["types"] = given["types"][:, :length]
    return Inputs(**given)


def check_same_fields(rows: Sequence[Inputs | None], *, but: str | None = None) -> None:
    """Raises a ValueError for a row that has a field which another lacks.

    Args:
        rows: inputs of each row.
        but: field that some may have and others not. None = none.
    """
    # A row all of whose context is real needs no mask, and its neighbour may.
    free = {"context_mask", but}
    first, *others = ({} if row is None else _given(row) for row in rows)
    for given in others:
        if given.keys() - free != first.keys() - free:
            raise ValueError(
                f"rows that are decoded together need the same inputs, but one has {_names(first)} and another "
                f"{_names(given)}; give all of them the same, or set batch to 1"
            )


def stack_inputs(rows: Sequence[Inputs | None]) -> Inputs | None:
    """The inputs of a batch.

    Args:
        rows: of each row; all of them have the same fields, and soft prefixes are equally long.

    Raises:
        ValueError: a row has a field that another lacks.
    """
    check_same_fields(rows)
    together: dict[str, list[Tensor]] = {}
    for row in rows:
        given = {} if row is None else _given(row)
        if "context" in given:
            context = given["context"]
            real = torch.ones(context.shape[:2], dtype=torch.bool, device=context.device)
            given.setdefault("context_mask", real)
        for name, value in given.items():
            together.setdefault(name, []).append(value)
    if not together:
        return None
    masked = any(row is not None and row.context_mask is not None for row in rows)
    widths = {value.shape[1] for value in together.get("context", [])}
    if not masked and len(widths) == 1:
        together.pop("context_mask")
    return Inputs(**{name: _joined(values) for name, values in together.items()})


def step_inputs(inputs: Inputs | None) -> Inputs | None:
    """What of a prompt's inputs holds for each token after it; a new token is of the type of the last one read."""
    if inputs is None:
        return None
    return Inputs(condition=inputs.condition, types=None if inputs.types is None else inputs.types[:, -1:])


def count_soft_tokens(inputs: Inputs | None) -> int:
    """Soft tokens that stand before a prompt."""
    return 0 if inputs is None or inputs.prefix is None else inputs.prefix.shape[1]


def _given(inputs: Inputs) -> dict[str, Tensor]:
    named = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    return {name: value for name, value in named.items() if value is not None}


def _names(given: dict[str, Tensor]) -> str:
    return " and ".join(given) or "none"


def _joined(values: Sequence[Tensor]) -> Tensor:
    """Rows one above the other, those that have a time axis padded on the right."""
    if values[0].dim() == 1 or len({value.shape[1] for value in values}) == 1:
        return torch.cat(list(values))
    width = max(value.shape[1] for value in values)
    padding = [(0, 0) * (value.dim() - 2) + (0, width - value.shape[1]) for value in values]
    return torch.cat([functional.pad(value, pad) for value, pad in zip(values, padding, strict=True)])
