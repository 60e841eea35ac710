"""Skipping of optimizer steps whose gradients are not finite."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def nan_if_not_finite(loss: Tensor) -> Tensor:
    """Return the loss; a loss that is not finite makes every gradient NaN.

    Gradients depend on the operations of a loss, not on its value. With NaN they carry the news to the other processes
    and into the sum of several batches.
    """
    if _is_finite_number(loss):
        return loss
    return loss * (loss.detach() * 0 + 1)


def total_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Return the norm of all gradients together, the same in all processes; parameters without one are omitted."""
    norm: Any = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # The norm of shards is a shard.
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole


def unscale(norm: Tensor, optimizer: Optimizer, precision: Any) -> Tensor:
    """Return the norm of the gradients of the loss itself; float16 multiplies the loss by a scale.

    Args:
        norm: norm of the gradients before a step.
        optimizer: fused optimizers of torch divide by the scale within their steps, Lightning before those of others.
        precision: precision plugin of the Trainer.
    """
    scale = getattr(getattr(precision, "scaler", None), "_scale", None)
    return norm if scale is None or not getattr(optimizer, "_step_supports_amp_scaling", False) else norm / scale


def skip_step(optimizer: Optimizer, norm: Tensor) -> Tensor | bool:
    """Let the optimizer skip its next step if the norm of the gradients is not finite.

    Optimizers with `found_inf` (the fused ones of torch among them) get a number on the device, so nothing waits for
    it. Other optimizers lose their gradients, so that every step reads the norm from the device, and waits for it; so
    does a first step with momentum. A norm on the CPU is read at once, which takes less time than operations on it.

    Returns:
        True if the step is skipped: a number on the device, or a plain value if it had to be read.
    """
    if _is_finite_number(norm):
        return False
    non_finite = ~norm.isfinite()
    can_skip = getattr(optimizer, "_step_supports_amp_scaling", False) or hasattr(optimizer, "found_inf")
    if can_skip and norm.device.type != "cpu":
        drop_first_momentum(optimizer, non_finite)
        optimizer.found_inf = non_finite.to(torch.float32)  # type: ignore[attr-defined]
        return non_finite
    if not bool(non_finite):
        return False
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
    return True


def drop_first_momentum(optimizer: Optimizer, non_finite: Tensor) -> None:
    """Drop the momentum that a fused SGD of torch makes in a first step that it skips, without writing to it.

    Nothing is done to other optimizers. `non_finite` is read from the device only before a first step with momentum.
    """
    new = [
        parameter
        for group in optimizer.param_groups
        if group.get("fused") and group.get("momentum")
        for parameter in group["params"]
        if parameter.grad is not None and parameter not in optimizer.state
    ]
    if not new or not bool(non_finite):
        return

    def forget(*_: Any) -> None:
        for parameter in new:
            optimizer.state.pop(parameter, None)
        hook.remove()

    hook = optimizer.register_step_post_hook(forget)


def _is_finite_number(value: Tensor) -> bool:
    """Return whether a number is finite if it is on the CPU; False elsewhere, where reading it would wait."""
    return value.device.type == "cpu" and math.isfinite(value.item())
