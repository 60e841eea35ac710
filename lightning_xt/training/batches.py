"""Batches of any loader, read in the shape that the models train on."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_xt.core.batch import EvaluationPairs, PairBatch, find_inner_padding
from lightning_xt.core.inputs import Inputs
from lightning_xt.objectives.cross_entropy import IGNORED

TOKENS = "a language model reads token ids, an integer tensor (rows, tokens) of at least two tokens a row"
PAIRS = (
    "a Seq2Seq reads (src, tgt) or (src, tgt, src_mask): token ids, integer tensors (rows, tokens), the start token "
    "first in tgt, and a boolean mask of the shape of src"
)


def read_tokens(batch: Any, vocab_size: int) -> Tensor:
    """Return a batch's ids, a tensor or a list of one; ValueError for anything else, or ids outside the vocabulary."""
    if isinstance(batch, (list, tuple)) and len(batch) == 1:
        batch = batch[0]
    _check_ids("tokens", batch, vocab_size, 2, TOKENS)
    tokens: Tensor = batch
    return tokens


def read_inputs(batch: Any, expected: Sequence[str], first: int = 0) -> tuple[Any, Inputs | None]:
    """Return a batch without the inputs besides ids that the data said it has, and these inputs.

    Args:
        batch: batch of any loader.
        expected: names of the inputs. None of them, and the batch is returned as it is.
        first: index of the first of n + 1 tokens that the network reads; inputs of other tokens are dropped.

    Raises:
        ValueError: the batch is not a dict of ids and just these inputs.
    """
    named = isinstance(batch, Mapping) and ("tokens" in batch or {"src", "tgt"} <= batch.keys())
    if not expected and not named:
        return batch, None
    given = batch.keys() - {"tokens", "src", "tgt", "src_mask"} if named else set()
    if not named or given != set(expected):
        names = ", ".join(expected) or "nothing"
        found = f"a dict of {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else _describe(batch)
        raise ValueError(
            f"a batch is {found}, but --data.inputs names {names}; items must be dicts of ids and of all inputs that "
            "it names"
        )
    inputs = {name: batch[name] for name in expected}
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"the input {name} of a batch is {_describe(value)}; it must be a tensor")
        if name == "types" or (name == "condition" and value.dim() == 3):
            inputs[name] = value[:, first : first + value.shape[1] - 1]
    ids = [batch[name] for name in ("src", "tgt", "src_mask") if name in batch]
    return batch.get("tokens", ids), Inputs(**inputs)


def read_pairs(batch: Any, vocab: dict[str, int | None]) -> PairBatch:
    """Return sources, targets and source mask, by default all True; ValueError for anything else, or unknown ids."""
    if not isinstance(batch, (list, tuple)) or len(batch) not in (2, 3):
        raise ValueError(f"a batch is {_describe(batch)}; {PAIRS}")
    src, tgt, *mask = batch
    _check_ids("src", src, vocab["source"], 1, PAIRS)
    _check_ids("tgt", tgt, vocab["target"], 2, PAIRS)
    src_mask = torch.ones_like(src, dtype=torch.bool) if not mask or mask[0] is None else mask[0]
    if not isinstance(src_mask, Tensor) or src_mask.dtype != torch.bool or src_mask.shape != src.shape:
        raise ValueError(f"src_mask is {_describe(src_mask)} and src {_describe(src)}; {PAIRS}")
    if len(src) != len(tgt):
        raise ValueError(f"src has {len(src)} rows and tgt {len(tgt)}; give each source its target")
    if tgt.device.type == "cpu" and (problem := find_inner_padding(tgt, vocab["pad"])):
        raise ValueError(f"{problem}; set vocab.pad to an id that only fills up, or to null if there is none")
    return PairBatch(src, tgt, src_mask)


def read_evaluation_pairs(
    batch: Any, expected: Sequence[str], vocab: dict[str, int | None], first: int, trainer: Trainer
) -> tuple[EvaluationPairs, Inputs | None]:
    """Return the numbered pairs of an evaluation batch, and the inputs besides ids that it brings.

    This process has evaluated `first` rows before; the other arguments are those of `read_inputs` and `read_pairs`.
    """
    if isinstance(batch, EvaluationPairs):
        return batch, None
    ids, inputs = read_inputs(batch, expected)
    return number_pairs(read_pairs(ids, vocab), first, trainer), inputs


def number_pairs(pairs: PairBatch, first: int, trainer: Trainer) -> EvaluationPairs:
    """Assign numbers to the rows of an evaluation batch whose loader does not number them.

    This process has evaluated `first` rows before; each of the n processes evaluates every n-th row of the data.
    """
    rows = torch.arange(first, first + len(pairs.src), device=pairs.src.device)
    return EvaluationPairs(*pairs, rows * trainer.world_size + trainer.global_rank, None)


def _check_ids(name: str, ids: Any, vocab_size: int | None, least: int, rule: str) -> None:
    whole = isinstance(ids, Tensor) and not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    if not whole or ids.dim() != 2 or ids.shape[1] < least:
        raise ValueError(f"{name} is {_describe(ids)}; {rule}")
    # Elsewhere the look would wait for the device.
    if ids.device.type == "cpu" and vocab_size is not None and ids.numel():
        low, high = _find_range(ids)
        if low == IGNORED:
            low, high = _find_range(ids.masked_fill(ids == IGNORED, 0))
        if low < 0 or high >= vocab_size:
            raise ValueError(
                f"{name} has token {low if low < 0 else high}, outside the vocabulary of 0 to {vocab_size - 1}"
            )


def _find_range(ids: Tensor) -> tuple[int, int]:
    low, high = ids.aminmax()
    return int(low), int(high)


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} and shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"
