"""Paths that a checkpoint holds: never used as they stand, because Lightning removes the files they name."""

import os
import re
from typing import Any

from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


def localize_saved_paths(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Replace the paths of checkpoint callbacks, in place, by those of the files in the run's own folder.

    A path whose name the callback does not give to its files is dropped, and so is the path of a missing file. The
    best score is dropped with the path of its file, however the folder is spelled.
    """
    states = checkpoint.get("callbacks")
    if not isinstance(states, dict):
        return
    for callback in trainer.checkpoint_callbacks:
        state = states.get(callback.state_key)
        if isinstance(callback, ModelCheckpoint) and isinstance(state, dict):
            states[callback.state_key] = _localize(callback, state)


def _localize(callback: ModelCheckpoint, state: dict[str, Any]) -> dict[str, Any]:
    template = callback.filename or "{epoch}-{step}"
    best = _own_path(callback, template, state.get("best_model_path"))
    last = _own_path(callback, callback.CHECKPOINT_NAME_LAST, state.get("last_model_path"))
    localized = {**state, "dirpath": callback.dirpath, "best_model_path": best, "last_model_path": last}
    kept = {_own_path(callback, template, path): score for path, score in (state.get("best_k_models") or {}).items()}
    kept.pop("", None)
    worst = _own_path(callback, template, state.get("kth_best_model_path"))
    if best and (worst or not state.get("kth_best_model_path")):
        return {**localized, "best_k_models": kept, "kth_best_model_path": worst}
    for name in ("best_k_models", "kth_best_model_path", "kth_value"):
        localized.pop(name, None)
    return {**localized, "best_model_path": "", "best_model_score": None}


def _own_path(callback: ModelCheckpoint, template: str, path: Any) -> str:
    """Return the path of a callback's own file that has the name of a saved path; empty if there is none."""
    name = re.split(r"[/\\]", path)[-1] if isinstance(path, str) else ""
    pattern = re.sub(r"\\\{.*?\\\}", ".*", re.escape(template)) + r"(-v\d+)?" + re.escape(callback.FILE_EXTENSION)
    if callback.dirpath is None or not re.fullmatch(pattern, name):
        return ""
    own = os.path.join(str(callback.dirpath), name)
    return own if get_filesystem(own).exists(own) else ""
