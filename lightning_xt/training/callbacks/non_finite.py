from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

import lightning_xt
from lightning_xt.checkpoints.runs import explain_restart
from lightning_xt.data.base import DataModule
from lightning_xt.system.files import replace_file
from lightning_xt.system.json_text import to_json
from lightning_xt.training.callbacks.exact_resume import ExactResume
from lightning_xt.training.callbacks.run_folder import find_run_folder
from lightning_xt.training.step_boundaries import is_logged

FILE = "non_finite.json"


class NonFinite(Callback):
    """Count skipped optimizer steps, and stop a run that skips too many in a row.

    A step is skipped if its loss or its gradient is not finite: weights, optimizer state and a moving average stay
    unchanged, and the schedule advances. Float16 finds the scale of its loss by skipping, so that there only steps with
    a non-finite loss count. `optim/skipped_steps` is their number since the run began. It is read from the device when
    it is logged and before each validation, so that no step waits for it. A run that stops writes `non_finite.json`
    with its batches into its folder.

    Args:
        limit: number of skipped steps in a row at which the run stops. None = it never stops.
    """

    logged = ("optim/skipped_steps",)

    def __init__(self, limit: int | None = 10) -> None:
        if limit is not None and limit < 1:
            raise ValueError(
                f"--non_finite.limit is {limit}; it must be at least 1 optimizer step, or null to never stop"
            )
        self.limit = limit
        self._skipped: Tensor | int = 0
        self._in_a_row: Tensor | int = 0
        self._reached: Tensor | int = 0
        """Last step, counted from 1, of too many skipped ones in a row; 0 so far."""
        self._step = 0
        self._first = (0, 0)
        self._ends: dict[int, int] = {}
        """Batches that the run had done after each of its latest steps."""
        self._saved_ends: dict[int, int] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step, self._reached = trainer.global_step, 0
        data = getattr(trainer, "datamodule", None)
        seen = data.samples_seen if isinstance(data, DataModule) else 0
        self._first = (trainer.fit_loop.epoch_loop.total_batch_idx + 1, seen)
        self._ends = {
            self._step - back: self._first[0] - back * trainer.accumulate_grad_batches
            for back in range(min(self.limit or 1, self._step + 1))
        } | self._saved_ends
        self._saved_ends = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        # A step may take several batches.
        if step == self._step:
            return
        self._step = step
        self._ends[step] = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        # A user's module may lack it.
        self._count(getattr(pl_module, "faulty_step", False), step)
        if is_logged(trainer, step):
            pl_module.log("optim/skipped_steps", float(self._look(trainer)))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)
        if trainer.state.fn == TrainerFn.FITTING:
            check_weights(trainer, dict(pl_module.named_parameters()))

    on_train_end = on_validation_start

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": int(self._skipped), "in_a_row": int(self._in_a_row), "ends": self._latest_ends()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._skipped, self._in_a_row = state_dict["skipped"], state_dict["in_a_row"]
        # Checkpoints of earlier versions lack them.
        self._saved_ends = state_dict.get("ends", {})

    def _latest_ends(self) -> dict[int, int]:
        return {step: end for step, end in self._ends.items() if step >= self._step - (self.limit or 0)}

    def _count(self, faulty: Tensor | bool, step: int) -> None:
        self._skipped = self._skipped + faulty
        self._in_a_row = (self._in_a_row + 1) * faulty
        if self.limit is not None:
            # The first stays: it is 0 until it is reached.
            self._reached = self._reached + (self._reached == 0) * (self._in_a_row >= self.limit) * step

    def _look(self, trainer: Trainer) -> int:
        """Return the number of skipped steps; ValueError if too many were skipped in a row."""
        reached = int(self._reached)
        if reached and self.limit is not None:
            self._reached = 0
            steps = range(reached - self.limit + 1, reached + 1)
            file = self._write(trainer, steps)
            where = "" if file is None else f"; {file} lists their batches"
            again = explain_restart(find_run_folder(trainer), without="begin again")
            raise ValueError(
                f"the loss or its gradient was not finite in {self.limit} optimizer steps in a row, {steps[0]} to "
                f"{steps[-1]}, the limit of --non_finite.limit{where}; lower the learning rate or set "
                f"--trainer.gradient_clip_val, and {again}, with --trainer.detect_anomaly true to see the operation"
            )
        self._ends = self._latest_ends()
        return int(self._skipped)

    def _write(self, trainer: Trainer, steps: range) -> Path | None:
        """Write the batches of the steps to a file; None if the run has no folder."""
        folder, data = find_run_folder(trainer), getattr(trainer, "datamodule", None)
        if folder is None:
            return None
        found: dict[str, Any] = {
            "version": lightning_xt.__version__,
            "seed": next((each.seed for each in _callbacks(trainer) if isinstance(each, ExactResume)), None),
            "processes": trainer.world_size,
            "data": None,
            "steps": [],
        }
        if isinstance(data, DataModule):
            found["data"] = {
                "class_path": type(data).__name__,
                "hash": data.content_hash,
                **data.describe_order(),
            }
        first, seen = self._first
        for step in steps:
            batches = [self._ends[step - 1], self._ends[step]]
            samples = None
            if isinstance(data, DataModule):
                samples = [data.samples_after(seen, batch - first) for batch in batches]
            # From the first number to the one before the second.
            found["steps"].append({"step": step, "batches": batches, "samples": samples})
        file = folder / FILE
        if trainer.is_global_zero:
            with replace_file(file) as out:
                out.write((to_json(found, indent=2, ascii_only=True) + "\n").encode())
        # All processes stop when one does, so each waits for the file.
        trainer.strategy.barrier("non-finite")
        return file


def check_weights(trainer: Trainer, weights: dict[str, Tensor], starts: bool = False) -> None:
    """Raise a ValueError if weights are not finite in any process; all processes must call it."""
    shards = [each.to_local() if hasattr(each, "to_local") else each.detach() for each in weights.values()]
    with torch.inference_mode(False), torch.no_grad():
        lost = sum((~each.isfinite().all()).float() for each in shards if each.is_floating_point())
    if not float(trainer.strategy.reduce(torch.as_tensor(lost), reduce_op="sum")):
        return
    if starts:
        raise ValueError("the weights that the run starts from are not finite; start from another checkpoint")
    again = explain_restart(find_run_folder(trainer), without="begin again")
    raise ValueError(
        f"the weights are not finite after step {trainer.global_step}, so they are neither saved nor measured; lower "
        f"the learning rate, set --trainer.gradient_clip_val or --trainer.precision bf16-mixed, and {again}"
    )


def _callbacks(trainer: Trainer) -> list[Callback]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks
