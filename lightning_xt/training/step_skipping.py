"""Leaves out optimizer steps whose gradients are no finite numbers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def nan_if_not_finite(loss: Tensor) -> Tensor:
    """The same loss; one that is no finite number makes no gradient a finite number.

    Gradients do not depend on the loss they come from, but on what made it. This way they tell of it wherever they go:
    to the other processes, and into the sum of several batches.

    Args:
        loss: one number.
    """
    return loss * (loss.detach() * 0 + 1)


def total_norm(parameters: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients together, the same in all processes.

    Args:
        parameters: those that have none are left out.
    """
    norm: Any = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # Of shares it is a share.
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole


def skip_step(optimizer: Optimizer, norm: Tensor) -> Tensor | bool:
    """Has the optimizer leave out its next step where the norm of the gradients is no finite number.

    Optimizers that can (`found_inf`, fused ones of torch among them) are told on the device, and nothing waits for it.
    From others the gradients are taken away, which takes a look at the norm; so does a first step with momentum.

    Args:
        optimizer: about to step.
        norm: of its gradients.

    Returns:
        Whether it does, as one number on the device, or as a plain value where it had to be looked at.
    """
    non_finite = ~norm.isfinite()
    if getattr(optimizer, "_step_supports_amp_scaling", False) or hasattr(optimizer, "found_inf"):
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
    """Has a fused SGD of torch forget the momentum of a first step that it leaves out: it makes it, and writes nothing.

    Args:
        optimizer: about to step; any other is left alone.
        non_finite: whether it leaves the step out. Looked at only before a first step with momentum.
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
