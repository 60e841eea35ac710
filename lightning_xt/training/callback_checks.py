"""Callbacks of Lightning that would silently do something else in a run, or nothing."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    SpikeDetection,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)

from lightning_xt.system.discovery import find_variants
from lightning_xt.system.messages import explain_unknown

REFUSED = MappingProxyType(
    {
        BaseFinetuning: "counts epochs, of which a run has one; train from the weights of a run: --init_from RUN",
        BatchSizeFinder: "restores a checkpoint in the middle of a fit, which then counts its samples from 0; set "
        "--data.batch_size, and raise it while the memory lasts",
        GradientAccumulationScheduler: "counts epochs, of which a run has one; set --trainer.accumulate_grad_batches",
        LearningRateFinder: "restores a checkpoint in the middle of a fit, which then counts its samples from 0; "
        "use the command lightning-xt lr",
        ModelPruning: "renames the weights, so that no checkpoint loads without it; train a smaller model, or use "
        "--inference.weights int8",
        SpikeDetection: "cannot resume with its run; set --non_finite.limit and --trainer.gradient_clip_val",
        StochasticWeightAveraging: "counts epochs, of which a run has one, and averages nothing; use "
        "TailAverage, or --keep_checkpoints 10 and lightning-xt average",
    }
)
"""Reason and way out by class; those of a subclass too."""
OF_STEPS = ("train/", "optim/", "speed/")
"""Groups of metrics that are logged in steps, and only in some of them."""
SWAPS = "exchanges trained and averaged weights in a checkpoint that a stopped validation saves; use "
AVERAGES: Mapping[type, str] = MappingProxyType(
    {EMAWeightAveraging: f"{SWAPS}ExponentialAverage", WeightAveraging: f"{SWAPS}TailAverage"}
)
"""Reason and way out for a command's callbacks, whose validations signals may stop; not those of a subclass."""


def check_callback_class(found: type, exactly: Mapping[type, str] = MappingProxyType({})) -> None:
    """Raise a ValueError for a class of callbacks that cannot do its work in a run, or is `exactly` one of these."""
    if found in exactly:
        raise ValueError(f"trainer.callbacks: {found.__name__} {exactly[found]}")
    for kind, reason in REFUSED.items():
        if issubclass(found, kind):
            raise ValueError(f"trainer.callbacks: {found.__name__} {reason}")


def check_callback_names(args: Sequence[str], configs: Iterable[Mapping[str, Any]]) -> None:
    """Raise a ValueError for a refused class among the names of callbacks, before its options are parsed."""
    named = re.findall(r"--trainer\.callbacks[^\s=]*[=\s](\S+)", " ".join(args))
    trainers = (config.get("trainer") for config in configs)
    named += [
        str(value)
        for trainer in trainers if isinstance(trainer, Mapping)
        for option, value in trainer.items() if str(option).startswith("callbacks")
    ]  # fmt: skip
    words = set(re.findall(r"\w+", " ".join(named)))
    for kind in find_variants(Callback):
        if kind.__name__ in words and kind.__module__.startswith("lightning."):
            check_callback_class(kind)


def check_callbacks(callbacks: Sequence[Callback], trainer: Trainer) -> None:
    """Raise a ValueError for a callback that cannot do its work in this run.

    Args:
        callbacks: of the Trainer.
        trainer: with batches as limited as in the run.
    """
    for each in callbacks:
        check_callback_class(type(each))
        limited = trainer.limit_train_batches not in (None, 1.0) or trainer.overfit_batches  # type: ignore[attr-defined]
        if (option := _find_epochs(each)) and trainer.max_epochs == -1 and not limited:
            raise ValueError(
                f"trainer.callbacks: {type(each).__name__} has {option}, but the training data has no end, so it has "
                "no epochs; count steps there"
            )


def check_monitors(callbacks: Sequence[Callback], model: LightningModule) -> None:
    """Raise a ValueError for a metric that a callback waits for and that no part of the run logs.

    If there is a custom part that does not list its metrics in `logged`, nothing is known.
    """
    parts, names = (model, *callbacks), set[str]()
    for kind in map(type, parts):
        if kind.__module__.partition(".")[0] not in ("lightning", "lightning_xt") and "logged" not in vars(kind):
            return
        names.update(getattr(kind, "logged", ()))
    names.update(getattr(getattr(model.trainer, "datamodule", None), "logged", ()))
    if not model.trainer.limit_val_batches:
        names = {name for name in names if not name.startswith("val/")}
    for each in callbacks:
        monitor = getattr(each, "monitor", None)
        own = type(each).__module__.startswith("lightning_xt.")
        # Of `LearningRateMonitor`.
        if monitor is None or monitor.startswith("lr-") or own or not getattr(each, "strict", True):
            continue
        if monitor not in names | ({"step", "epoch"} if isinstance(each, ModelCheckpoint) else set()):
            raise ValueError(
                f"trainer.callbacks: {explain_unknown(f'monitor of {type(each).__name__}', monitor, names)}"
            )
        if monitor.startswith(OF_STEPS):
            _check_logged(each, monitor, model.trainer)


def _check_logged(callback: Callback, monitor: str, trainer: Trainer) -> None:
    """Raise a ValueError if a callback looks at a metric in steps in which it is not logged."""
    every, looks = trainer.log_every_n_steps, _find_interval(callback, trainer)  # type: ignore[attr-defined]
    # A run's last step is logged.
    if looks is None or (every and (looks % every == 0 or 0 < trainer.max_steps <= looks)):
        return
    raise ValueError(
        f"trainer.callbacks: {type(callback).__name__} looks at {monitor} every {looks} optimizer steps, but "
        f"trainer.log_every_n_steps is {every}, so that it is an older step's or unknown; set "
        f"--trainer.log_every_n_steps {math.gcd(looks, every)}, or monitor a metric of validations, such as val/loss"
    )


def _find_interval(callback: Callback, trainer: Trainer) -> int | None:
    """Return the optimizer steps between two looks of a callback at its metric; None if they are not known."""
    if isinstance(callback, ModelCheckpoint) and callback._every_n_train_steps:
        return int(callback._every_n_train_steps)
    steps = isinstance(trainer.val_check_interval, int) and trainer.check_val_every_n_epoch is None
    if not steps or not isinstance(callback, (EarlyStopping, ModelCheckpoint)):
        return None
    # After each validation; Lightning counts batches.
    return max(1, int(trainer.val_check_interval) // trainer.accumulate_grad_batches)


def _find_epochs(callback: Callback) -> str | None:
    """Return the option by which a callback waits for the end of epochs, None if it does not."""
    if isinstance(callback, Timer) and callback._interval == "epoch":
        return "interval epoch"
    if isinstance(callback, LearningRateMonitor) and callback.logging_interval == "epoch":
        return "logging_interval epoch"
    if isinstance(callback, ModelCheckpoint) and callback._every_n_epochs > 1:
        return f"every_n_epochs {callback._every_n_epochs}"
    return None
