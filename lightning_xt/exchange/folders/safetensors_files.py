"""Weights in safetensors files, in one or in several shards."""

import errno
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lightning_xt.system.free_memory import get_free_memory
from lightning_xt.system.messages import UserError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "pytorch_model.pt", "model.pth")


def write_tensors(tensors: Mapping[str, Tensor], folder: Path, dtype: torch.dtype) -> None:
    """Write tensors to one file of a folder, floating-point ones in the given type; OSError if that is impossible."""
    cast = {name: each.to(dtype) if each.is_floating_point() else each for name, each in tensors.items()}
    write_tensor_file(cast, folder / SINGLE)


def write_tensor_file(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors to a file; OSError if it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        # `transformers` refuses files that do not say for which library they are.
        save_file({name: each.contiguous() for name, each in tensors.items()}, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(file)) from error


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder.

    Raises:
        UserError: there are none, they are pickled, or a file is damaged or outside the folder.
    """
    files = [SINGLE]
    if (folder / INDEX).is_file():
        files = _list_shards(folder)
    elif not (folder / SINGLE).is_file():
        pickled = next((name for name in PICKLED if (folder / name).exists()), None)
        if pickled is not None:
            raise UserError(
                f"{folder} has its weights in {pickled}, which is pickled: to load it could run any code; convert it "
                "to safetensors first, with save_pretrained of transformers"
            )
        raise UserError(f"{folder} has no {SINGLE}, so there are no weights to import; give a folder of a model")
    refuse_large_files(folder / name for name in files)
    found: dict[str, Tensor] = {}
    for name in files:
        found |= read_tensor_file(folder / name)
    return found


def refuse_large_files(files: Iterable[Path]) -> None:
    """Raise a UserError if files have more bytes than there is free memory; a file may be larger than its disk."""
    size, free = sum(each.stat().st_size for each in files if each.is_file()), get_free_memory()
    if free is not None and size > free:
        raise UserError(
            f"there is not enough memory for weights of {size / 1e9:.1f} GB: {free / 1e9:.1f} GB are free; end other "
            "programs, or use a machine with more"
        )


def _list_shards(folder: Path) -> list[str]:
    try:
        shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / INDEX} is malformed ({error}); copy the folder again") from error
    names = list(dict.fromkeys(map(str, shards)))
    if outside := [name for name in names if Path(name).name != name]:
        raise UserError(f"{folder / INDEX} names {outside[0]}, which is not a file of its folder; copy it there")
    if others := [name for name in names if not name.endswith(".safetensors")]:
        # Of other files nobody has checked where they lead.
        raise UserError(f"{folder / INDEX} names {others[0]}, which is not a .safetensors file; save the model again")
    return names


def read_tensor_file(file: Path) -> dict[str, Tensor]:
    """Read all tensors of a file; UserError if it is damaged or there is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file} cannot be read ({reason}); copy it again") from error
    return found
