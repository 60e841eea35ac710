from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_xt.checkpoints.flat_config import flatten_config
from lightning_xt.training.callbacks.run_folder import find_run_options
from lightning_xt.training.display_faults import DisplayFaults
from lightning_xt.training.loggers.media import log_results

SECTIONS = ("seed_everything", "model.", "data.")
"""Options that results may depend on, besides those of the Trainer."""
OF_TRAINER = ("max_steps", "precision", "devices", "accumulate_grad_batches", "gradient_clip_val")

FIRST = ("decoder.dim", "decoder.depth", "decoder.attention.position", "model.optimizer", "model.optimizer.lr")
"""Endings of the names of options that come first."""


class RunResults(Callback):
    """Log the options of a run next to the metrics of its last validation when training ends.

    TensorBoard's HPARAMS tab then compares runs. Options that are null or empty are omitted.
    """

    def __init__(self) -> None:
        self._faults = DisplayFaults("results of the run")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # `last.ckpt` is saved afterwards.
        with self._faults.tolerate():
            options = find_run_options(trainer) or {"model": dict(pl_module.hparams)}
            metrics = {
                name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")
            }
            log_results(trainer.loggers, _choose(flatten_config(options)), metrics)


def _choose(options: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the options that results may depend on, what people change most first."""
    kept = (*SECTIONS, *(f"trainer.{name}" for name in OF_TRAINER))
    names = [name for name, value in options.items() if name.startswith(kept) and value not in (None, [], "[]", "")]
    return {name: options[name] for name in sorted(names, key=lambda name: not name.endswith(FIRST))}
