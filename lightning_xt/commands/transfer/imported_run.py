"""Run folder of an imported model: a config with all options and a checkpoint."""

import shutil
from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path

import yaml
from lightning.pytorch import Trainer

from lightning_xt.checkpoints.runs import checkpoint_file, create_run
from lightning_xt.checkpoints.saved_tokenizers import use_saved_tokenizers
from lightning_xt.commands.trainer.command_line import OF_ONE_COMMAND
from lightning_xt.commands.trainer.run_trainer import train
from lightning_xt.exchange.imported_model import ImportedModel
from lightning_xt.system.discovery import import_path
from lightning_xt.training.module import TransformerModule


def write_run(imported: ImportedModel, runs: Path) -> Path:
    """Write the folder of a run, the next of its name, and return it; ValueError or OSError if it cannot be made."""
    folder = create_run(runs)
    try:
        for name, content in imported.files.items():
            (folder / name).write_bytes(content)
        (folder / "config.yaml").write_text(_write_config(imported, folder, runs), encoding="utf-8")
        file = checkpoint_file(folder, "best")
        file.parent.mkdir()
        save_checkpoint(imported.module, file)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def save_checkpoint(module: TransformerModule, file: Path) -> None:
    """Write a checkpoint of a model before its first step, as a Trainer does."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(file, weights_only=True)


def _write_config(imported: ImportedModel, folder: Path, runs: Path) -> str:
    """Return the config of a run with this model, with the defaults of `fit` in all else."""
    options = {name: each for name, each in imported.module.hparams.items() if not name.startswith("_")}
    model = {"class_path": import_path(type(imported.module)), "init_args": options}
    given, content = folder / "config.yaml", {"model": model, "data": deepcopy(imported.data)}
    use_saved_tokenizers(content, folder)
    given.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    printed = StringIO()
    # The parser completes what `fit` would run with.
    with redirect_stdout(printed):
        try:
            train("fit", ["-c", str(given), "--name", runs.name, "--print_config"])
        except SystemExit as end:
            if end.code not in (None, 0):
                raise
    complete = yaml.safe_load(printed.getvalue())
    for name in OF_ONE_COMMAND:
        complete.pop(name, None)
    return str(yaml.safe_dump(complete, sort_keys=False))
