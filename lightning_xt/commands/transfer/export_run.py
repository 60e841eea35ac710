"""Export of a run."""

from pathlib import Path

import torch

from lightning_xt.checkpoints.runs import find_checkpoint, find_run
from lightning_xt.commands.models.loading import load
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.folders.new_folder import write_folder
from lightning_xt.exchange.formats.base import ExportFormat
from lightning_xt.exchange.formats.format_choice import find_format, list_formats
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.system.messages import UserError


def export_run(run: str, name: str | None, output: str | None, dtype: str, tokens: int | None) -> int:
    """Export the model of a RUN, and print the folder and how it was checked; return the exit code.

    Without the name of a format, print the formats and whether the model fits each. UserError or ValueError if there is
    no such run or format, the model does not fit it, or the folder cannot be written.
    """
    chosen = None if name is None else find_format(name)
    options = ExportOptions(getattr(torch, dtype), tokens)
    model = ExportedModel(run, load(run, torch.device("cpu")).float(), options)
    model.check_length()
    if chosen is None:
        return _print_formats(model)
    model = model if chosen.keeps_adapter else model.merge()
    chosen.check(model)
    folder = Path(output) if output is not None else _choose_folder(run, chosen)
    with write_folder("--output", folder) as part:
        chosen.write(model, part)
        found = [str(chosen.verify(model, part)), *chosen.verify_tokenizers(model, part)]
    print(*found, sep="\n")
    print(f"export={folder}", flush=True)
    return 0


def _choose_folder(run: str, chosen: ExportFormat) -> Path:
    found = find_run(find_checkpoint(run))
    if found is None:
        raise UserError(f"{run} is not in the folder of a run, which exports go to; name a folder: --output FOLDER")
    return found / "export" / chosen.name


def _print_formats(model: ExportedModel) -> int:
    for each in list_formats():
        try:
            each.check(model if each.keeps_adapter else model.merge())
        except MisfitError as error:
            print(f"{each.name:13} no: {error}")
        else:
            print(f"{each.name:13} yes: {each.summary}")
    return 0
