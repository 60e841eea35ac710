"""The module of a run, from its checkpoint alone."""

import torch

from lightning_xt.checkpoints.checkpoint import read_checkpoint
from lightning_xt.checkpoints.migrations import OWN
from lightning_xt.checkpoints.runs import checkpoint_of
from lightning_xt.commands.checkpoints import step_of
from lightning_xt.system.messages import UserError
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.module import Module, module_class


def load(run: str) -> Module:
    """The module of a RUN, on the fastest device there is; its classes must be imported.

    Raises:
        UserError: it is no run, or its checkpoint is of no module of ours.
        ValueError: the file cannot be read.
    """
    try:
        checkpoint = checkpoint_of(run)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from error
    step_of(checkpoint)
    kind = (read_checkpoint(checkpoint).get(OWN) or {}).get("kind")
    # What was saved before checkpoints told their kind was a language model.
    found = module_class(kind) or LanguageModel
    try:
        model = found.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{checkpoint} cannot be read as a checkpoint of a {found.__name__}: {reason}") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()
