"""Modules of runs, built from their checkpoints alone."""

import torch
from jsonargparse import ArgumentError

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.checkpoints.runs import find_checkpoint
from lightning_xt.system.discovery import find_variants, import_named
from lightning_xt.system.messages import UserError
from lightning_xt.training.from_config import import_class, instantiate
from lightning_xt.training.module import TransformerModule
from lightning_xt.training.parse_errors import explain_parse_error


def load(run: str, device: torch.device | None = None) -> TransformerModule:
    """Build the module of a RUN, ready to be used; UserError or ValueError if there is no such module.

    Args:
        run: a run, or a checkpoint.
        device: where. None = on the first CUDA GPU, or on the CPU if there is none.
    """
    try:
        checkpoint = Checkpoint(find_checkpoint(run))
    except FileNotFoundError as error:
        raise UserError(str(error)) from error
    weights, name = checkpoint.weights, checkpoint.module_class
    if name is None or not checkpoint.config or checkpoint.step < 0:
        raise UserError(
            f"{checkpoint.path} does not say how its {name or 'model'} was built; save models that were built with "
            "from_config or on the command line"
        )
    found = find_module_class(name)
    try:
        model = instantiate(found, checkpoint.config)
        model.on_load_checkpoint(checkpoint.contents)
        model.load_state_dict(weights)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if isinstance(error, ArgumentError):
            reason = explain_parse_error(str(error).replace('"module.', '"model.'), ())
        raise UserError(f"{checkpoint.path} cannot be read as a checkpoint of a {found.__name__}: {reason}") from error
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def find_module_class(path: str) -> type[TransformerModule]:
    """Find a model's class by import path, or by bare name; ValueError if there is no such model."""
    import_named(path)
    named = [each for each in find_variants(TransformerModule) if each.__name__ == path]
    if named:
        return named[0]
    found: type[TransformerModule] = import_class("the checkpoint's model", path, TransformerModule)
    return found
