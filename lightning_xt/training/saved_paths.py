"""Paths that a checkpoint holds: never used as they stand, because Lightning removes the files they name."""

import os
import re
from functools import cache, lru_cache
from typing import Any

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


def localize_saved_paths(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Replace the paths of checkpoint callbacks, in place, by those of the files in the run's own folder.

    A path whose name the callback does not give to its files is dropped, and so is the path of a missing file, and of
    a ranked one of a later step: a run that goes back does not rank the model of another branch. The best score is
    dropped with the path of its file, however the folder is spelled.
    """
    states = checkpoint.get("callbacks")
    if not isinstance(states, dict):
        return
    for callback in trainer.checkpoint_callbacks:
        state = states.get(callback.state_key)
        if isinstance(callback, ModelCheckpoint) and isinstance(state, dict):
            states[callback.state_key] = _localize(callback, state, checkpoint.get("global_step"))


def _localize(callback: ModelCheckpoint, state: dict[str, Any], step: Any) -> dict[str, Any]:
    @cache
    def rank(path: Any) -> str:
        own = _own_path(callback, callback.filename or "{epoch}-{step}", path)
        later = own and callback.monitor is not None and isinstance(step, int) and _find_step(own) > step
        return "" if later else own

    best = rank(state.get("best_model_path"))
    last = _own_path(callback, callback.CHECKPOINT_NAME_LAST, state.get("last_model_path"))
    localized = {**state, "dirpath": callback.dirpath, "best_model_path": best, "last_model_path": last}
    kept = {rank(path): score for path, score in (state.get("best_k_models") or {}).items()}
    kept.pop("", None)
    worst = rank(state.get("kth_best_model_path"))
    if best and (worst or not state.get("kth_best_model_path")):
        return {**localized, "best_k_models": kept, "kth_best_model_path": worst}
    for name in ("best_k_models", "kth_best_model_path", "kth_value"):
        localized.pop(name, None)
    return {**localized, "best_model_path": "", "best_model_score": None}


def _find_step(file: str) -> int:
    return _read_step(os.path.abspath(file), os.stat(file).st_mtime_ns) if os.path.isfile(file) else -1


@lru_cache(maxsize=8)
def _read_step(file: str, changed: int) -> int:
    """Read the step of a checkpoint, changed at some time, and none of its weights; -1 if it has none."""
    try:
        return int(torch.load(file, weights_only=True, mmap=True, map_location="cpu")["global_step"])
    except Exception:
        # Python's unpickler raises almost anything for a file that it did not write.
        return -1


def _own_path(callback: ModelCheckpoint, template: str, path: Any) -> str:
    """Return the path of a callback's own file that has the name of a saved path; empty if there is none."""
    name = re.split(r"[/\\]", path)[-1] if isinstance(path, str) else ""
    pattern = re.sub(r"\\\{.*?\\\}", ".*", re.escape(template)) + r"(-v\d+)?" + re.escape(callback.FILE_EXTENSION)
    if callback.dirpath is None or not re.fullmatch(pattern, name):
        return ""
    own = os.path.join(str(callback.dirpath), name)
    return own if get_filesystem(own).exists(own) else ""
