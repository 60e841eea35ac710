"""Rows of the comparison: options of x-transformers, and ours that compute the same."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

VOCAB, LENGTH = 17, 12
LAYERS = "dim=16, depth=2, heads=4, attn_dim_head=8, verbose=False"
WRAPPER = f"num_tokens={VOCAB}, max_seq_len={LENGTH}, use_abs_pos_emb=False"
DECODER = {
    "dim": 16,
    "depth": 2,
    "norm": {"class_path": "LayerNorm", "init_args": {"eps": 1e-5}},
    "feedforward": {"class_path": "MLP", "init_args": {"bias": True}},
}
ATTENTION = {"heads": 4, "dim_head": 8, "position": None}


@dataclass(frozen=True)
class Row:
    """Options of both sides.

    Args:
        name: title of the row.
        theirs: constructor of x-transformers.
        ours: options of a LanguageModel.
        given: name of an input besides the tokens. None = there is none.
        decodes: True if their cache gives what their forward does.
    """

    name: str
    theirs: str
    ours: Mapping[str, Any]
    given: str | None = None
    decodes: bool = True


def list_rows() -> list[Row]:
    """List the rows of rows.yaml."""
    found = yaml.safe_load(Path(__file__).with_name("rows.yaml").read_text("utf-8"))
    return [_make_row(name, **each) for name, each in found.items()]


def _make_row(
    name: str,
    layers: str = "",
    wrapper: str = "",
    decoder: Mapping[str, Any] | None = None,
    attention: Mapping[str, Any] | None = None,
    **others: Any,
) -> Row:
    ours = {**DECODER, **(decoder or {}), "attention": {**ATTENTION, **(attention or {})}}
    inner = f"Decoder({join_options(LAYERS, layers)})"
    theirs = f"TransformerWrapper({join_options(WRAPPER, wrapper)}, attn_layers={inner})"
    return Row(name, theirs, {"vocab": {"target": VOCAB}, "decoder": ours}, **others)


def join_options(*texts: str) -> str:
    """Join options of a constructor; later ones replace earlier ones."""
    calls = [ast.parse(f"f({text})", mode="eval").body for text in texts]
    joined = {each.arg: ast.unparse(each.value) for call in calls for each in call.keywords}
    return ", ".join(f"{name}={value}" for name, value in joined.items())
