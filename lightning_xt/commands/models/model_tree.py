"""Tree of `info --tree`: a model's stages with shapes, parameters and FLOPs, without allocating it."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError

import lightning_xt
from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.commands.models.loading import find_module_class
from lightning_xt.models.outline import Stage, outline
from lightning_xt.system.discovery import import_submodules
from lightning_xt.system.messages import UserError
from lightning_xt.training.module import TransformerModule

NETWORKS = ("encoder", "decoder")
"""Stages of an encoder-decoder that have separate tables."""
LEGEND = """\
b rows of n tokens, or of those of a segment in a model with segments; a FLOP is an operation of a matrix product, a
multiplication and an addition are two; all pairs of tokens count, masked ones too; training is three times forward;
equal layers are listed once, with the parameters and FLOPs of all of them, and below them the parts of one"""


def tree(checkpoint: Checkpoint, facts: dict[str, Any], seq_len: int | None) -> tuple[dict[str, Any], str]:
    """Return the stages of a checkpoint's model and their totals, as plain values and as text.

    Rows have `seq_len` tokens. None = as many as the data's. UserError if the checkpoint does not say what its model or
    its length is, or the model cannot be built; ValueError if it has no positions for that many tokens.
    """
    import_submodules(lightning_xt)
    file = checkpoint.path
    if checkpoint.module_class is None or not checkpoint.config:
        raise UserError(
            f"{file} does not say what its {facts['kind'] or 'model'} is made of, so there is no tree of it; "
            "build models with from_config or on the command line"
        )
    if seq_len is None:
        seq_len = ((facts["data"] or {}).get("init_args") or {}).get("seq_len")
    if not isinstance(seq_len, int):
        raise UserError(f"{file} does not say how long its rows are; give --seq_len, such as --seq_len 256")
    root, device = _outline_model(file, find_module_class(checkpoint.module_class), checkpoint.config, seq_len)
    totals = _compute_totals(root, seq_len, device)
    return {**totals, "stages": asdict(root)}, "\n".join(_format_lines(root, totals))


def _outline_model(file: Path, kind: type[TransformerModule], model: dict[str, Any], seq_len: int) -> tuple[Stage, str]:
    """Return the stages, and the device they were computed on: some parts need values, and with them memory."""
    try:
        with torch.device("meta"):
            return outline(_build_network(file, kind, model), seq_len), "meta"
    except (NotImplementedError, RuntimeError):
        return outline(_build_network(file, kind, model), seq_len), "cpu"


def _build_network(file: Path, kind: type[TransformerModule], model: dict[str, Any]) -> Any:
    try:
        return kind.from_config(model).network
    except ValueError as error:
        if not isinstance(error.__cause__, ArgumentError):
            raise
        # Such as a class of the user's that is gone.
        raise UserError(f"the model of {file} cannot be built: {error}") from error


def _compute_totals(root: Stage, seq_len: int, device: str) -> dict[str, Any]:
    tables = ("token_embedding", "embeddings.")
    stages = [each for stage in root.stages for each in (stage, *(stage.stages if stage.name in NETWORKS else ()))]
    embedded = sum(stage.parameters for stage in stages if stage.name.startswith(tables))
    return {
        "seq_len": seq_len,
        "device": device,
        "parameters": root.parameters,
        "parameters_without_embeddings": root.parameters - embedded,
        "flops_per_token": root.flops / seq_len,
        "training_flops_per_token": 3 * root.flops / seq_len,
    }


def _format_lines(root: Stage, totals: dict[str, Any]) -> Iterator[str]:
    n = totals["seq_len"]
    rows = [("stage", "class", "output", "parameters", "FLOPs a token"), *_list_rows(root, n, 0)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=False)]
        right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        yield "  ".join([*left, *right]).rstrip()
    yield ""
    without = totals["parameters_without_embeddings"]
    yield f"parameters     {totals['parameters']:,}, {without:,} without embeddings"
    forward, training = totals["flops_per_token"], totals["training_flops_per_token"]
    yield f"FLOPs a token  {forward:,.0f} forward, {training:,.0f} in training, at n = {n:,}"
    yield LEGEND
    if totals["device"] != "meta":
        yield "a part needs values to compute with, so the forward was computed on the CPU, not on shapes only"


def _list_rows(stage: Stage, n: int, depth: int) -> Iterator[tuple[str, str, str, str, str]]:
    name = "  " * depth + stage.name
    if stage.times > 1:
        name += f" ({stage.times}x)"
    if stage.calls > 1:
        name += f" (called {stage.calls}x)"
    yield (
        name,
        stage.kind,
        stage.shape,
        f"{stage.parameters:,}" if stage.parameters else "",
        f"{stage.flops / n:,.0f}" if stage.flops else "",
    )
    for each in stage.stages:
        yield from _list_rows(each, n, depth + 1)
