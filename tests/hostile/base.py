"""Folder that every case begins with: a finished run of each kind, their configs and their texts."""

import contextlib
import io
import os
from pathlib import Path

from tiny_pairs import write_pairs
from tiny_run import write_inputs

from lightning_xt.cli import main


def make_base(folder: Path) -> None:
    """Train runs/tiny (a language model, with checkpoints to average) and runs/pairs (a translator)."""
    write_inputs(folder)
    write_pairs(folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            codes = [main(["fit", "-c", "tiny.yaml", "--keep_checkpoints", "2"]), main(["fit", "-c", "pairs.yaml"])]
    finally:
        os.chdir(here)
    if codes != [0, 0]:
        raise RuntimeError(f"the runs that the corpus needs end with {codes}")
