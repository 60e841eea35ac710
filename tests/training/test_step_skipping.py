"""Optimizer steps without a finite gradient are skipped without waiting for the device."""

import pytest
import torch

from lightning_xt.training.step_skipping import nan_if_not_finite, skip_step


@pytest.mark.parametrize("value", [1.0, -3.5])
def test_a_finite_loss_is_not_poisoned(value):
    loss = torch.tensor(value, requires_grad=True)
    nan_if_not_finite(loss).backward()
    assert (nan_if_not_finite(loss).item(), loss.grad.item()) == (value, 1.0)


def test_momentum_begins_with_the_first_step_that_is_made():
    """Momentum begins with the first step that is taken, fused or not; dampening starts with the second."""
    ends = []
    for fused in (True, False):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, dampening=0.5, fused=fused)
        for gradient in (float("nan"), float("inf"), 2.0, 3.0, float("nan"), 5.0):
            weight.grad = torch.full((3,), gradient)
            skip_step(optimizer, weight.grad.norm())
            optimizer.step()
        ends.append(weight.detach())
    assert torch.equal(*ends)


def test_it_waits_for_no_device():
    """Skipping reads no value on the host: on the meta device that would fail."""
    weight = torch.nn.Parameter(torch.ones(3, device="meta"))
    for optimizer in (torch.optim.AdamW([weight], fused=False), torch.optim.SGD([weight], fused=False)):
        optimizer.found_inf = None
        skipped = skip_step(optimizer, torch.ones((), device="meta"))
        assert skipped.device.type == optimizer.found_inf.device.type == "meta"


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_that_has_begun_waits_for_no_device(momentum):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=momentum, fused=True)
    weight.grad = torch.ones(3)
    optimizer.step()
    skipped = skip_step(optimizer, torch.ones((), device="meta"))
    assert skipped.device.type == optimizer.found_inf.device.type == "meta"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_on_the_cpu_a_step_is_skipped_without_operations(value):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], fused=True)
    for gradient, skipped in ((1.0, False), (value, True), (2.0, False)):
        weight.grad = torch.full((3,), gradient)
        before = weight.detach().clone()
        assert skip_step(optimizer, weight.grad.norm()) is skipped
        optimizer.step()
        assert torch.equal(weight, before) is skipped
    assert not hasattr(optimizer, "found_inf")
    assert optimizer.state[weight]["step"] == 2


def test_a_finite_loss_on_the_cpu_stays_itself():
    loss = torch.ones((), requires_grad=True)
    assert nan_if_not_finite(loss) is loss
    lost = torch.tensor(float("inf"), requires_grad=True)
    nan_if_not_finite(lost).backward()
    assert lost.grad.isnan()
