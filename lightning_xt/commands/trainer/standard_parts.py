"""Callbacks, loggers and plugins that every command gives its Trainer besides those of `trainer`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar, WeightAveraging
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import CheckpointIO

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.commands.trainer.run_choice import Resolved
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.training.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_xt.training.callbacks.best_checkpoint import BestCheckpoint
from lightning_xt.training.callbacks.disk_space_check import DiskSpaceCheck
from lightning_xt.training.callbacks.exact_resume import ExactResume
from lightning_xt.training.callbacks.last_checkpoint import LastCheckpoint
from lightning_xt.training.callbacks.linear_schedule import LinearSchedule
from lightning_xt.training.callbacks.preemption import Preemption
from lightning_xt.training.callbacks.range_test import RangeTest
from lightning_xt.training.callbacks.restore_trained_weights import RestoreTrainedWeights
from lightning_xt.training.callbacks.run_folder import LoggerFactory, RunFolder
from lightning_xt.training.callbacks.run_results import RunResults
from lightning_xt.training.callbacks.start_banner import StartBanner
from lightning_xt.training.callbacks.step_progress_bar import StepProgressBar
from lightning_xt.training.callbacks.throughput import Throughput
from lightning_xt.training.callbacks.validation_schedule import ValidationSchedule
from lightning_xt.training.callbacks.write_predictions import WritePredictions
from lightning_xt.training.loggers.metrics_file import MetricsFile
from lightning_xt.training.loggers.tensor_board import TensorBoard
from lightning_xt.training.loggers.tracker import Tracker

CallbackFactory = Callable[[], Callback]
SaveConfig = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class StandardParts:
    """Callbacks, loggers and the checkpoint plugin of a command; null switches one off.

    Args:
        run_folder: makes the folder of a run.
        start_banner: prints four lines before a fit.
        tensor_board: logs to TensorBoard, in fit unless trainer.logger is false.
        metrics_file: logs to metrics.csv, likewise.
        throughput: logs speed and memory, in fit.
        run_results: logs the options next to the final metrics, in fit.
        validation_schedule: validates every --validate_every steps and at the end, in fit.
        best_checkpoint: saves best.ckpt, in fit.
        last_checkpoint: saves last.ckpt, every --checkpoint_every steps of fit.
        disk_space_check: warns where the disk is too small for the checkpoints of fit.
        preemption: saves and ends when the system asks a fit to stop.
        exact_resume: makes a resumed fit draw what the uninterrupted one would have.
        restore_trained_weights: resumes from trained weights where a checkpoint's run averaged them.
        progress_bar: shows progress, unless trainer.enable_progress_bar is false.
        write_predictions: writes --output, in predict.
        checkpoint_io: writes and reads checkpoint files.
    """

    run_folder: Callable[[Path, Path | None, SaveConfig, list[LoggerFactory], Checkpoint | None], Callback] | None = (
        RunFolder
    )
    start_banner: CallbackFactory | None = StartBanner
    tensor_board: LoggerFactory | None = TensorBoard
    metrics_file: LoggerFactory | None = MetricsFile
    throughput: CallbackFactory | None = Throughput
    run_results: CallbackFactory | None = RunResults
    validation_schedule: CallbackFactory | None = ValidationSchedule
    best_checkpoint: CallbackFactory | None = BestCheckpoint
    last_checkpoint: Callable[[int, int], Callback] | None = LastCheckpoint
    disk_space_check: Callable[[int], Callback] | None = DiskSpaceCheck
    preemption: CallbackFactory | None = Preemption
    exact_resume: CallbackFactory | None = ExactResume
    restore_trained_weights: CallbackFactory | None = RestoreTrainedWeights
    progress_bar: Callable[[], ProgressBar] | None = StepProgressBar
    write_predictions: Callable[[Path, GenerationOptions], Callback] | None = WritePredictions
    checkpoint_io: Callable[[], CheckpointIO] | None = AtomicCheckpointIO

    def callbacks(self, command: str, options: Any, resolved: Resolved, save_config: SaveConfig) -> list[Callback]:
        """Build the callbacks of a command for the run it works on."""
        trainer, keep = options.trainer, options.keep_checkpoints
        folder, last, space = self.run_folder, self.last_checkpoint, self.disk_space_check
        found: list[Callback | None] = []
        if folder is not None and (command == "fit" or resolved.folder is not None):
            logs = command == "fit" and trainer.logger is not False
            loggers = [build for build in (self.tensor_board, self.metrics_file) if logs and build is not None]
            found += [folder(resolved.runs, resolved.folder, save_config, loggers, resolved.checkpoint)]
        if command != "fit":
            return [each for each in found if each is not None]
        found += [_build(self.start_banner), _build(self.throughput), _build(self.validation_schedule)]
        found += [_build(self.run_results)]
        if trainer.enable_checkpointing is not False:
            found += [_build(self.best_checkpoint), last and last(options.checkpoint_every, keep)]
            # Preemption after them, so that what is due at a step is saved once.
            found += [space and space(keep), _build(self.preemption)]
        return [each for each in found if each is not None]

    def model_callbacks(self) -> list[Callback]:
        """Build those that a model would add of itself."""
        found = (_build(self.exact_resume), _build(self.restore_trained_weights))
        return [each for each in found if each is not None]


def choose_callbacks(given: Sequence[Callback]) -> list[Callback]:
    """Return the callbacks of a command that work together, from its option."""
    # An overlay appends its average to the callbacks; the last of several holds.
    found = list({type(each) if isinstance(each, WeightAveraging) else each: each for each in given}.values())
    if any(isinstance(each, RangeTest) for each in found):
        # They have their place in a run of the config's length, and the range test is shorter.
        found = [each for each in found if not isinstance(each, (LinearSchedule, WeightAveraging))]
    return found


def choose_loggers(command: str, given: Any) -> Any:
    """Return the loggers of a command besides those of its run, from its option; a tracker has runs of `fit` only."""
    loggers = given if isinstance(given, list) else [given] if isinstance(given, Logger) else []
    return [each for each in loggers if command == "fit" or not isinstance(each, Tracker)] or False


def _build(factory: CallbackFactory | None) -> Callback | None:
    return None if factory is None else factory()
