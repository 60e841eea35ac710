import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import BaseFileLock, FileLock, Timeout
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.checkpoints.runs import check_writable, create_run
from lightning_xt.system.messages import make_visible
from lightning_xt.training.loggers.tracker import Tracker
from lightning_xt.training.saved_paths import localize_saved_paths

LoggerFactory = Callable[[Path, int | None], Logger]

ORPHANS = 10.0
"""Seconds that a process may take to end after it was killed; until then it holds its lock."""


class RunFolder(Callback):
    """Folder of a run, with its config, metrics, samples and checkpoints.

    The folder is made once the data has been read. A command that fails before the end of its first batch leaves the
    disk unchanged: it removes the folder that it made, or the config that it wrote into an existing one.

    Args:
        runs: folder of all runs of this name.
        folder: the run to resume. None = a new one, the next number in `runs`.
        save_config: writes the config to a file.
        loggers: loggers that write into the folder, each built from it and the step that the run resumes from, if any.
        checkpoint: the checkpoint to resume. None = none.
    """

    def __init__(
        self,
        runs: Path,
        folder: Path | None,
        save_config: Callable[[Path], None],
        loggers: Sequence[LoggerFactory],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.runs, self.folder, self.save_config = runs, folder, save_config
        self.loggers, self.checkpoint = loggers, checkpoint
        self._made: list[Path] = []
        self._config: Path | None = None
        """The config that this command has written."""
        self._options: Mapping[str, Any] | None = None
        self._begun = False
        self._lock: BaseFileLock | None = None

    @property
    def options(self) -> Mapping[str, Any] | None:
        """The options of this training, as the config that it has written states them. None = it has written none."""
        return self._options

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._choose(trainer)
        # Only once, because a `fit` ends with a validation.
        if self.folder is not None and trainer.is_global_zero and self._config is None:
            config = _free_name(self.folder, _command(trainer))
            try:
                self.save_config(config)
            except OSError as error:
                if stage == "fit":
                    raise OSError(
                        f"{config} cannot be written ({error.strerror}); make room, or start a run elsewhere with "
                        "--trainer.default_root_dir"
                    ) from error
                # A validation may read a run that it cannot write to.
                rank_zero_info(
                    f"{config} cannot be written ({error.strerror}): the options of this command are not kept"
                )
            else:
                self._config = config
        if self._config is not None and stage == "fit":
            # Kept, because the file may be gone when training ends.
            self._options = yaml.safe_load(self._config.read_text(encoding="utf-8"))
            for logger in trainer.loggers:
                if isinstance(logger, Tracker):
                    logger.begin(self._config.parent, self._options)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        localize_saved_paths(trainer, checkpoint)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._begun = True

    on_test_batch_end = on_train_batch_end

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._begun = self._begun or not trainer.sanity_checking

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release()
        for logger in trainer.loggers:
            if isinstance(logger, Tracker):
                logger.note_exception(exception)
        if self._begun:
            return
        if self._config is not None:
            self._config.unlink(missing_ok=True)
        if self._made and self.folder is not None:
            for logger in trainer.loggers:
                logger.finalize("failed")
            self._remove()
            self.folder = None

    def _reserve(self, folder: Path) -> None:
        """Lock the run, ValueError if another command trains it; the system unlocks it when this process ends."""
        self._lock = FileLock(folder / ".lock")
        try:
            with warnings.catch_warnings():
                # On a disk without the system's locks the file itself is the lock, and names its holder.
                warnings.filterwarnings("ignore", ".*falling back to SoftFileLock", UserWarning)
                self._lock.acquire(timeout=ORPHANS)
        except Timeout as error:
            raise ValueError(f"the run {folder} is being trained by {_describe_holder(folder / '.lock')}") from error
        except (OSError, NotImplementedError) as error:
            rank_zero_info(f"{folder / '.lock'} cannot be locked ({error}): train this run by one command at a time")
            self._lock = None

    def _release(self) -> None:
        if self._lock is not None and self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _remove(self) -> None:
        """Remove the folder that this command made, and the parents that it made if they are empty."""
        shutil.rmtree(self._made[0], ignore_errors=True)
        for folder in self._made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _choose(self, trainer: Trainer) -> None:
        folder = self.folder = self._make(trainer)
        step = self._read_step()
        profiler = trainer.profiler  # type: ignore[attr-defined]
        if profiler.dirpath == trainer.log_dir:
            # Lightning's choice, where the profiles of the next run would replace those of this one.
            profiler.dirpath = folder
        if self.loggers:
            trainer.loggers = [*(build(folder, step or None) for build in self.loggers), *trainer.loggers]
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(folder / "checkpoints")

    def _read_step(self) -> int:
        """Return the step that the run resumes from, as the last process that held the lock has left it."""
        if self.checkpoint is None:
            return 0
        changed, step = self.checkpoint.refresh(), self.checkpoint.step
        if changed:
            rank_zero_info(f"{self.checkpoint.path} was saved meanwhile by another process: resuming at step {step}")
        return step

    def _make(self, trainer: Trainer) -> Path:
        """Make the next folder, or check the existing one, in one process, and send the path to the others."""
        made: Path | ValueError | None = None
        if trainer.is_global_zero:
            missing = [folder for folder in (self.runs, *self.runs.parents) if not os.path.exists(folder)]
            try:
                made = self.folder or create_run(self.runs)
                self._made = [] if self.folder else [made, *missing]
                check_writable(made)
                self._reserve(made)
            except ValueError as error:
                if self._made:
                    self._remove()
                # Raised in all processes, because a single one would leave the others waiting.
                made = error
        made = trainer.strategy.broadcast(made)
        if not isinstance(made, Path):
            raise made if made is not None else ValueError("no process made the run folder")
        return made


def _describe_holder(lock: Path) -> str:
    """Return who holds a lock, with the way out; its file names the process where nothing else unlocks it."""
    try:
        process, host = lock.read_text(encoding="utf-8").splitlines()[:2]
        minutes = (time.time() - lock.stat().st_mtime) / 60
    except (OSError, ValueError):
        return "another process; wait for it, or start another run with --name"
    return (
        f"process {make_visible(process)} of the machine {make_visible(host)}, for {minutes:.0f} minutes so far, as "
        f"{lock} states; wait for it, or if it has ended there, remove that file"
    )


def find_run_folder(trainer: Trainer) -> Path | None:
    """Return the folder of the run once data is set up; None if there is none."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunFolder):
            return callback.folder
    return None


def find_run_options(trainer: Trainer) -> Mapping[str, Any] | None:
    """Return the options that this training has written into the folder of its run; None if it has not."""
    found = (each for each in trainer.callbacks if isinstance(each, RunFolder))  # type: ignore[attr-defined]
    return next((each.options for each in found), None)


def _command(trainer: Trainer) -> str:
    command = trainer.state.fn
    return "" if command is None else str(command.value)


def _free_name(folder: Path, stage: str) -> Path:
    """Return `config.yaml` for the first command of a run, `config.<stage>.<k>.yaml` for later ones."""
    if not (folder / "config.yaml").exists():
        return folder / "config.yaml"
    number = 0
    while (file := folder / f"config.{stage}.{number}.yaml").exists():
        number += 1
    return file
