"""Inputs of single rows: stacked for a batch and split again."""

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.requests import Request


def select_row(inputs: Inputs | None, row: int, length: int | None = None) -> Inputs | None:
    """Return the inputs of one row, whose types are cut to `length` tokens if that is given."""
    if inputs is None:
        return None
    present: dict[str, Any] = {name: value[row : row + 1] for name, value in _list_fields(inputs).items()}
    if "types" in present:
        present["types"] = present["types"][:, :length]
    return Inputs(**present)


def check_same_fields(rows: Sequence[Inputs | None], *, ignore: str | None = None) -> None:
    """Raise a ValueError if a row has a field that another lacks, unless it is `ignore`."""
    # A row whose context has no padding needs no mask, while its neighbour may need one.
    optional = {"context_mask", ignore}
    first, *others = ({} if row is None else _list_fields(row) for row in rows)
    for present in others:
        if present.keys() - optional != first.keys() - optional:
            raise ValueError(
                f"rows that are decoded together need the same inputs, but one has {_join_names(first)} and another "
                f"{_join_names(present)}; give all of them the same, or set batch to 1"
            )


def stack_inputs(rows: Sequence[Inputs | None]) -> Inputs | None:
    """Stack the inputs of rows, with soft prefixes of one length; ValueError for a field that only some rows have."""
    check_same_fields(rows)
    together: dict[str, list[Tensor]] = {}
    for row in rows:
        present = {} if row is None else _list_fields(row)
        if "context" in present:
            context = present["context"]
            real = torch.ones(context.shape[:2], dtype=torch.bool, device=context.device)
            present.setdefault("context_mask", real)
        for name, value in present.items():
            together.setdefault(name, []).append(value)
    if not together:
        return None
    masked = any(row is not None and row.context_mask is not None for row in rows)
    widths = {value.shape[1] for value in together.get("context", [])}
    if not masked and len(widths) == 1:
        together.pop("context_mask")
    joined: dict[str, Any] = {name: _concatenate(values) for name, values in together.items()}
    return Inputs(**joined)


def step_inputs(inputs: Inputs | None) -> Inputs | None:
    """Return the inputs of a decode step: the condition, and the type of the prompt's last token."""
    if inputs is None:
        return None
    if inputs.condition is not None and inputs.condition.dim() == 3:
        raise ValueError(
            "Inputs(condition=...) has one vector a token, but new tokens have none; give one vector a row to decode"
        )
    return Inputs(condition=inputs.condition, types=None if inputs.types is None else inputs.types[:, -1:])


def stack_step_inputs(requests: Collection[Request], copies: int = 1) -> Inputs | None:
    """Stack the inputs of a decode step of requests, each for `copies` rows."""
    rows = [step_inputs(request.inputs) for request in requests for _ in range(copies)]
    return stack_inputs(rows) if rows else None


def _list_fields(inputs: Inputs) -> dict[str, Tensor]:
    if inputs.keys_values is not None:
        raise ValueError("Inputs(keys_values=...) is for whole forwards; omit it to decode")
    if inputs.memories is not None:
        raise ValueError(
            "Inputs(memories=...) is for forwards, not for requests; omit it, and begin the prompt with the remembered "
            "tokens"
        )
    named = {field.name: getattr(inputs, field.name) for field in fields(inputs)}
    return {name: value for name, value in named.items() if value is not None}


def _join_names(present: dict[str, Tensor]) -> str:
    return " and ".join(present) or "none"


def _concatenate(values: Sequence[Tensor]) -> Tensor:
    """Concatenate rows; those with a time axis are padded on the right."""
    if values[0].dim() == 1 or len({value.shape[1] for value in values}) == 1:
        return torch.cat(list(values))
    width = max(value.shape[1] for value in values)
    padding = [(0, 0) * (value.dim() - 2) + (0, width - value.shape[1]) for value in values]
    return torch.cat([functional.pad(value, pad) for value, pad in zip(values, padding, strict=True)])
