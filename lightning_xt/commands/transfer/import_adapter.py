"""Import of an adapter that PEFT has saved, onto the model of a run."""

import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.checkpoints.runs import checkpoint_file, create_run, find_checkpoint, find_run
from lightning_xt.checkpoints.saved_tokenizers import name_tokenizer_file, use_saved_tokenizers
from lightning_xt.commands.models.loading import load
from lightning_xt.commands.transfer.imported_run import save_checkpoint
from lightning_xt.exchange.adapters.adapter_import import read_adapter
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.system.discovery import import_path
from lightning_xt.system.messages import UserError
from lightning_xt.training.module import TransformerModule
from lightning_xt.training.network_adaptation import count_trained


def import_adapter(given: str, base: str, name: str | None, root: str) -> int:
    """Make a run of a base with an adapter, and print it; return the exit code. UserError if it cannot be imported."""
    folder = Path(given)
    if not folder.is_dir():
        raise UserError(f"{given} is not a folder; give an adapter that PEFT has saved")
    file = find_checkpoint(base)
    owner = find_run(file)
    if owner is None:
        raise UserError(f"--base {base} is not in the folder of a run, whose config the new run needs; name a run")
    checkpoint = Checkpoint(file)
    module = read_adapter(folder, ExportedModel(base, load(base, torch.device("cpu")).float(), ExportOptions()))
    module.on_load_checkpoint(checkpoint.contents)
    config = yaml.safe_load((owner / "config.yaml").read_text(encoding="utf-8"))
    run = _write_run(module, config, Path(root) / (name or folder.resolve().name))
    trained, parameters = count_trained(module)
    print(f"imported an adapter of {trained:,} parameters onto a model of {parameters - trained:,}")
    print(f"run={run}", flush=True)
    return 0


def _write_run(module: TransformerModule, config: dict[str, Any], runs: Path) -> Path:
    """Write the folder of a run with the config of the base, and return it."""
    folder = create_run(runs)
    options = {name: each for name, each in module.hparams.items() if not name.startswith("_")}
    model = {"class_path": import_path(type(module)), "init_args": options}
    try:
        for use, tokenizer in module.tokenizers.items():
            if (saved := tokenizer.saved_content) is not None:
                (folder / name_tokenizer_file(use, tokenizer.saved_name)).write_bytes(saved)
        use_saved_tokenizers(config, folder)
        content = yaml.safe_dump({**config, "model": model, "name": runs.name}, sort_keys=False)
        (folder / "config.yaml").write_text(content, encoding="utf-8")
        file = checkpoint_file(folder, "best")
        file.parent.mkdir()
        save_checkpoint(module, file)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder
