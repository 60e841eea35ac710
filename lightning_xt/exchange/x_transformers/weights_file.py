"""Files with the weights of a model of x-transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.exchange.folders.safetensors_files import read_tensor_file, refuse_large_files
from lightning_xt.system.messages import UserError

NESTED = ("state_dict", "model_state_dict", "model")
"""Names under which training scripts save a state dict next to other values."""
WAY_OUT = "save it again: torch.save(model.state_dict(), FILE)"


def read_weights(file: Path, anchor: str) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file or one of torch.save, of which nothing is executed.

    Names may have a prefix, such as `net.` of an AutoregressiveWrapper or `_orig_mod.` of a compiled model.

    Args:
        file: the file.
        anchor: a tensor that every model has, without the prefix.

    Raises:
        UserError: the file cannot be read, or holds other values than tensors.
    """
    refuse_large_files([file])
    found = read_tensor_file(file) if file.suffix == ".safetensors" else _read_saved(file)
    prefix = next((name.removesuffix(anchor) for name in found if f".{name}".endswith(f".{anchor}")), "")
    return {name.removeprefix(prefix): each for name, each in found.items()}


def _read_saved(file: Path) -> dict[str, Tensor]:
    try:
        found: Mapping[Any, Any] = Checkpoint(file).contents
    except ValueError as error:
        raise UserError(f"{error}; {WAY_OUT}, or as safetensors") from error
    nested = next((found[name] for name in NESTED if isinstance(found.get(name), Mapping)), found)
    weights = {str(name): each for name, each in nested.items() if isinstance(each, Tensor)}
    if others := [name for name in nested if str(name) not in weights]:
        kind = type(nested[others[0]]).__name__
        raise UserError(f"{file} is not a state dict: its {others[0]} is a {kind}, not a tensor; {WAY_OUT}")
    return weights
