"""Launchers of clusters: turn off what Lightning does there besides training, and count processes."""

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    KubeflowEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lightning_xt.commands.trainer.weight_checks import list_leaves
from lightning_xt.system.messages import UserError
from lightning_xt.training.empty_hooks import drop_empty_hooks
from lightning_xt.training.no_profiler import NoProfiler
from lightning_xt.training.restoring import check_loops, check_moments, explain_misfits
from lightning_xt.training.step_loop import StepLoop
from lightning_xt.training.steps_done import StepsDone
from lightning_xt.training.strategies.same_processes import compare_when_connected

MOST_PROCESSES = 8
"""Processes that every machine may be asked to run."""


def choose_environments(strategy: Any, plugins: Sequence[Any]) -> list[ClusterEnvironment]:
    """Return environments for the Trainer: under SLURM, Lightning's own without its signal handlers.

    Those save another checkpoint from within the handler, requeue the job, and train on. UserError if the job's options
    do not say how many processes a node has, or the launcher of a given one has not started it.
    """
    given = [each for each in plugins if isinstance(each, ClusterEnvironment)]
    for each in given:
        # Kubeflow cannot be detected.
        theirs = type(each).__module__.startswith("lightning.") and not isinstance(
            each, (LightningEnvironment, KubeflowEnvironment)
        )
        if theirs and not each.detect():
            raise UserError(f"trainer.plugins: no launcher of {type(each).__name__} has started this process; omit it")
    if given or getattr(strategy, "cluster_environment", None) is not None:
        return []
    # The order in which Lightning looks: torchrun may run within SLURM.
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    try:
        return [SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:
        raise UserError(f"SLURM: {error}") from error


def adopt_trainer(trainer: Trainer, options: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Keep a Trainer from handling signals and from checkpoints that were not named; have it log at the steps done.

    UserError if its count of processes is not that of the machines, or more than a machine can run. The run ends if a
    process has other `options`, the plain values of the command.
    """
    _check_processes(trainer)
    compare_when_connected(trainer, _list_common_options(options))
    trainer._signal_connector = _NoSignals(trainer)
    trainer._checkpoint_connector = _NamedCheckpoints(trainer)
    trainer._logger_connector = StepsDone(trainer)
    trainer.fit_loop.epoch_loop = StepLoop(trainer)
    drop_empty_hooks(trainer)
    if type(trainer.profiler) is PassThroughProfiler:  # type: ignore[attr-defined]
        trainer.profiler = NoProfiler()  # type: ignore[attr-defined]
    environment = trainer._accelerator_connector.cluster_environment
    if environment.creates_processes_externally:
        # Lightning checks this only where it starts processes itself; each of the others would train alone.
        try:
            environment.validate_settings(trainer.num_devices, trainer.num_nodes)
        except ValueError as error:
            raise UserError(f"trainer: {error}") from error


def _check_processes(trainer: Trainer) -> None:
    """Raise a UserError for more processes on a CPU than it can run at all."""
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > (
        most := max(MOST_PROCESSES, 2 * cores)
    ):
        raise UserError(
            f"--trainer.devices is {trainer.num_devices}, a process each, but this machine has {cores} CPU cores; give "
            f"at most {most}"
        )


def _list_common_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that all processes have. Paths of data may be others on each machine; their text is not."""
    leaves = dict(list_leaves({name: value for name, value in options.items() if name != "config"}, ""))
    found = {f"--{name.removeprefix('.')}": value for name, value in leaves.items()}
    return {
        name: value
        for name, value in found.items()
        if not name.startswith("--data.") or value is None or isinstance(value, int | float)
    }


def close_process_group() -> None:
    """Close the process group, all processes together: at the end of each, gloo's threads abort it now and then."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


class _NoSignals(_SignalConnector):
    """Connector that handles no signals: Lightning's handlers wait for other processes at any moment."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False


class _NamedCheckpoints(_CheckpointConnector):
    """Connector that loads the checkpoint that was named, and never another file that lies about.

    Lightning's replaces None by a `hpc_ckpt_*.ckpt` of the root folder or an `on_exception.ckpt`. An entry
    that cannot be restored is a UserError.
    """

    def _parse_ckpt_path(self, state_fn: Any, ckpt_path: Any, *args: Any, **kwargs: Any) -> Any:
        return ckpt_path

    def _restore_modules_and_callbacks(self, checkpoint_path: Any = None, weights_only: bool | None = None) -> None:
        with explain_misfits(checkpoint_path):
            super()._restore_modules_and_callbacks(checkpoint_path, weights_only)

    def restore_training_state(self) -> None:
        with explain_misfits(self.trainer.ckpt_path):
            super().restore_training_state()

    def restore_loops(self) -> None:
        if self._loaded_checkpoint:
            check_loops(self._loaded_checkpoint.get("loops", {}), self._get_loops_state_dict())
        super().restore_loops()

    def restore_optimizers(self) -> None:
        super().restore_optimizers()
        check_moments(self.trainer.optimizers)
