"""Import of a folder of `transformers`."""

from pathlib import Path

from lightning_xt.commands.transfer.imported_run import write_run
from lightning_xt.exchange.importing import read_folder
from lightning_xt.system.messages import UserError


def import_folder(given: str, name: str | None, root: str) -> int:
    """Make a run of a folder, and print it; return the exit code. UserError if the folder cannot be imported."""
    folder = Path(given)
    if not folder.is_dir():
        raise UserError(f"{given} is not a folder; give one with config.json and model.safetensors")
    imported = read_folder(folder)
    run = write_run(imported, Path(root) / (name or folder.resolve().name))
    parameters = sum(each.numel() for each in imported.module.parameters())
    print(f"imported a {imported.label} of {parameters:,} parameters")
    for remark in imported.remarks:
        print(remark)
    print(f"run={run}", flush=True)
    return 0
