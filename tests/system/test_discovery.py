"""Discovery by file names: a command imports what a config names, and everything only for lists and errors."""

import subprocess
import sys

import pytest

WITHOUT_OTHERS = """
import os, sys
from lightning.pytorch import LightningModule
from torch import nn
from lightning_xt.cli import main
from lightning_xt.commands.models.import_lightning import import_lightning

import_lightning()
from lightning_xt.commands.trainer.command_line import CommandLine

def look(self):
    names = {name.rpartition(".")[2] for name in sys.modules if name.startswith("lightning_xt.")}
    print(*sorted(names & {"alibi", "token_shift", "mamba2", "state_dict_import", "masked_language_model"}), flush=True)
    os._exit(0)

CommandLine.instantiate_classes = look
main(sys.argv[1:])
"""
SMALL = ["-c", "language/quickstart.yaml"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "token_shift"),
        (["--model.decoder.attention.position", "ALiBi"], "alibi token_shift"),
        (["--model", "MaskedLanguageModel", "--data", "StandardLibrary"], "masked_language_model token_shift"),
        (["--model.decoder.attention.position", "lightning_xt.ALiBi"], "alibi token_shift"),
    ],
)
def test_fit_imports_the_variants_that_are_named(tmp_path, options, expected):
    command = [sys.executable, "-c", WITHOUT_OTHERS, "fit", *SMALL, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.splitlines()[-1:] == [expected], done.stderr
