"""Hooks of a training step that a callback does not have."""

from lightning.pytorch import Callback, Trainer

STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
"""Hooks that Lightning calls in each training step of every callback."""


def drop_empty_hooks(trainer: Trainer) -> None:
    """Replace the hooks of a step that callbacks inherit, which do nothing, by None, which Lightning does not call.

    A step has six hooks, and a command a dozen callbacks, of which most have none or one of them.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for name in STEP_HOOKS:
            # A hook may have been set on the object.
            if getattr(type(callback), name) is getattr(Callback, name) and name not in vars(callback):
                setattr(callback, name, None)
