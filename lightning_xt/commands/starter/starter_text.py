"""Starter of a language model on text files."""

import argparse
import json
from contextlib import suppress
from pathlib import Path

from lightning_xt.commands.starter.starter import Starter, count_steps, fill, list_commands, name_run, refer
from lightning_xt.data.files.archives import PACKED
from lightning_xt.data.files.json_lines import is_json_lines
from lightning_xt.data.files.paths import find_files
from lightning_xt.data.files.reading import read_blocks
from lightning_xt.data.text.documents import require_text
from lightning_xt.system.messages import UserError

LEAST = 5_500
"""Bytes of whose twentieth part a window can be measured."""
HELD_OUT = 200_000
"""Bytes of the validation split, and of the test split, that are enough."""
RATIO = 3
"""Size of a text relative to its packed file."""
CONFIG = """
data:
  class_path: TextFiles
  init_args:
    path: $path           # a file, a folder, or a pattern such as 'corpus/**/*.txt'
    # tokenizer: {class_path: BPE, init_args: {vocab_size: 2048}}  # sub-words instead of bytes
$field    validation: $held_out      # fraction of the text that is measured, and not trained on
    test: $held_out            # likewise, for lightning-xt test
    seq_len: 256          # bytes that the model sees at once
    batch_size: 4         # windows of a step; on a GPU 32 and more
    eval_batch_size: 32
model:
  class_path: LanguageModel
  init_args:
    decoder:
      dim: 128            # width; a larger model learns more from more text: 512 on a GPU
      depth: 4            # layers; 8 on a GPU
      dropout: $dropout        # against learning a small text by heart
      shift: TokenShift
      feedforward: {activation: ReLUSquared}
      attention:
        heads: 4          # divides dim
        qk_norm: RMSNorm
        value_mods: [ValueResidual]
    optimizer:
      class_path: MuonAdamW
      init_args:
        lr: 0.02          # of matrices, at every size
        adamw_lr: 0.005   # of embeddings, norms and gates, for this size; 0.003 for a dim of 512
        weight_decay: 0.1
    schedule:
      class_path: WarmupStableDecay
      init_args:
        decay: 0.6        # the last part of the run, in which the rates fall
        min_fraction: 0.0
sample_text:
  prompts: [$prompt]      # completed at each validation, in samples.txt
"""
README = """
This folder holds the text that the model learns. `sample.txt` is an example, a part of Python's documentation: remove
it and put your own `.txt` files here, plain text in UTF-8. `path` in `../config.yaml` names other places and endings.
"""


def describe_text(root: Path, path: str, field: str | None) -> Starter:
    """Return the starter for the user's text.

    Raises:
        UserError: there is no such text, or too little.
    """
    try:
        files = find_files("--path", path)
        for each in files:
            require_text(each, field or "")
        first = next((block for block in read_blocks(files[0])), b"")
    except (OSError, ValueError) as error:
        raise UserError(f"init: {error}") from error
    if b"\0" in first:
        raise UserError(f"init: {files[0]} is not text: it holds zero bytes; name text files")
    if field is None and is_json_lines(files[0].name):
        raise UserError(f"init: {files[0]} holds JSON lines; name the field with their text: {_offer_fields(first)}")
    size = sum(RATIO * each.stat().st_size if each.suffix.lower() in PACKED else each.stat().st_size for each in files)
    if size < LEAST:
        raise UserError(f"init: --path {path} holds {size:,} bytes, which is too little; give {LEAST:,} or more")
    found = f"Found {len(files):,} file{'s' if len(files) > 1 else ''} with {size:,} bytes"
    return _make(root, refer(root, path), size, found, _choose_prompt(first, field), field)


def make_sample_text(root: Path) -> Starter:
    """Return the starter with a sample of text, which every Python brings."""
    try:
        from pydoc_data.topics import topics  # type: ignore[import-not-found, unused-ignore]

        text = "\n".join(topics.values())
    except ImportError:
        text = Path(argparse.__file__).read_text(encoding="utf-8")
    found = f"data/sample.txt is an example of {len(text.encode()):,} bytes; replace it by your own text"
    files = {"data/sample.txt": text, "data/README.md": README.lstrip("\n")}
    return _make(root, "data/*.txt", len(text.encode()), found, "The ", None, files)


def _make(
    root: Path, path: str, size: int, found: str, prompt: str, field: str | None, files: dict[str, str] | None = None
) -> Starter:
    name, steps = name_run(root), count_steps(2800)
    config = fill(
        CONFIG.replace("$field", "" if field is None else "    field: $field\n"),
        {
            "title": "A language model on your own text", "part": "decoder",
            "name": name, "path": path, "field": field, "prompt": prompt, "steps": steps, "interval": steps // 4,
            "held_out": float(f"{min(0.05, HELD_OUT / size):.2g}"),
            "dropout": 0.2 if size < 1e6 else 0.1 if size < 5e6 else 0.0,
        },
    )  # fmt: skip
    return Starter(
        config=config,
        found=found,
        files=files or {},
        commands=list_commands("validate", name, prompt),
    )


def _choose_prompt(block: bytes, field: str | None) -> str:
    """Return the first words of a text, by which a completion may begin."""
    text = block.decode("utf-8", "replace")
    if field is not None:
        with suppress(ValueError, TypeError, AttributeError):
            text = str(json.loads(text.partition("\n")[0]).get(field, ""))
    line = next((line for line in text.splitlines() if line.isprintable() and len(line.split()) > 1), "The")
    return " ".join(line.split()[:2])[:40] + " "


def _offer_fields(block: bytes) -> str:
    """Return the fields of JSON lines that may hold the text, as options."""
    try:
        names = [name for name, value in json.loads(block.partition(b"\n")[0]).items() if isinstance(value, str)]
    except (ValueError, AttributeError):
        names = []
    return " or ".join(f"--field {name}" for name in names) or "--field NAME"
