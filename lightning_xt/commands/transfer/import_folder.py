"""Import of a folder of `transformers`."""

from pathlib import Path

from lightning_xt.commands.transfer.imported_run import write_run
from lightning_xt.exchange.adapters.adapter_tensors import CONFIG
from lightning_xt.exchange.imported_model import ImportedModel
from lightning_xt.exchange.importing import read_folder
from lightning_xt.system.messages import UserError


def import_folder(given: str, name: str | None, root: str) -> int:
    """Make a run of a folder, and print it; return the exit code. UserError if the folder cannot be imported."""
    folder = Path(given)
    if folder.is_file():
        raise UserError(
            f"{given} is a file; give a folder with config.json and model.safetensors, or, if it holds weights of "
            'x-transformers, the call of their model too: --call "TransformerWrapper(...)"'
        )
    if not folder.is_dir():
        raise UserError(f"{given} is not a folder; give one with config.json and model.safetensors")
    if (folder / CONFIG).is_file() and not (folder / "config.json").is_file():
        raise UserError(f"{given} holds an adapter of PEFT; name the run of the model that it changes: --base RUN")
    return save_import(read_folder(folder), Path(root) / (name or folder.resolve().name))


def save_import(imported: ImportedModel, runs: Path) -> int:
    """Write the run of an imported model, and print it; return the exit code. UserError if it cannot be written."""
    run = write_run(imported, runs)
    parameters = sum(each.numel() for each in imported.module.parameters())
    print(f"imported a {imported.label} of {parameters:,} parameters")
    for remark in imported.remarks:
        print(remark)
    print(f"run={run}", flush=True)
    return 0
