"""Maps that are stepped by Adam in the eigenbases of the covariances of their gradients."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_xt.training.optim.eigenbases import find_eigenbases, improve_eigenbases

SIDES = ("row", "column")
"""Sides of a matrix, each with a covariance of gradients and its eigenbasis."""


@dataclass
class PreconditionedMap:
    """Map to step: a weight, or one of the maps in it.

    Args:
        number: its number in the weight.
        state: state of the weight.
        gradient: (rows, columns).
        first: mean gradient in the eigenbases, a view of the state.
        second: mean squared gradient in the eigenbases, a view of the state.
    """

    number: int
    state: dict[str, Any]
    gradient: Tensor
    first: Tensor
    second: Tensor

    def name(self, side: str, kind: str) -> str:
        """Name the covariance or the basis of a side in the state."""
        return f"{side}_{kind}_{self.number}"

    def find(self, side: str, kind: str) -> Tensor:
        """Return the covariance or the basis of a side."""
        found: Tensor = self.state[self.name(side, kind)]
        return found

    @property
    def sides(self) -> tuple[str, ...]:
        """Sides with an eigenbasis."""
        return tuple(side for side in SIDES if self.name(side, "basis") in self.state)


def find_first_bases(maps: list[PreconditionedMap], group: dict[str, Any]) -> None:
    """Find the first covariances and eigenbases of maps of one shape, by finite gradients."""
    gradients = torch.stack([each.gradient for each in maps])
    for side, length in zip(SIDES, gradients.shape[1:], strict=True):
        if not 1 < length <= group["max_dim"]:
            continue
        covariances = _multiply_sides(gradients, side) * (1 - _find_shampoo_beta(group))
        bases = find_eigenbases(covariances)
        for each, covariance, basis in zip(maps, covariances, bases, strict=True):
            # Copies: a view would keep, and save, the batch.
            each.state[each.name(side, "covariance")] = covariance.clone()
            each.state[each.name(side, "basis")] = basis.clone()


def step_maps(maps: list[PreconditionedMap], group: dict[str, Any], skip: Tensor | None) -> Tensor:
    """Update the moments and covariances of maps of one shape, and compute their steps, (k, rows, columns)."""
    gradients = torch.stack([each.gradient for each in maps])
    if skip is not None:
        gradients = gradients.masked_fill(skip, 0)
    bases = {side: torch.stack([each.find(side, "basis") for each in maps]) for side in maps[0].sides}
    rotated = _rotate(gradients, bases)
    first, second = (torch.stack(each) for each in zip(*((each.first, each.second) for each in maps), strict=True))
    kept, added = weigh(group["betas"][0], skip, first.dtype)
    first.mul_(kept).add_(rotated * added)
    kept, added = weigh(group["betas"][1], skip, first.dtype)
    second.mul_(kept).add_(rotated.square_().mul_(added))
    torch._foreach_copy_([each.first for each in maps], list(first.unbind()))
    torch._foreach_copy_([each.second for each in maps], list(second.unbind()))
    counts = torch.stack([each.state["step"] for each in maps]).to(first.dtype)[:, None, None]
    # 1 - beta ** count without its rounding error.
    corrections = [-torch.expm1(counts * (math.log(beta) if beta else -math.inf)) for beta in group["betas"]]
    steps = first / (second / corrections[1]).sqrt_().add_(group["eps"])
    steps = _rotate(steps, {side: basis.mT for side, basis in bases.items()}).mul_(-group["lr"] / corrections[0])
    kept, added = weigh(_find_shampoo_beta(group), skip, first.dtype)
    for side in maps[0].sides:
        covariances = [each.find(side, "covariance") for each in maps]
        torch._foreach_mul_(covariances, kept)
        torch._foreach_add_(covariances, list(_multiply_sides(gradients, side).mul_(added).unbind()))
    return steps if skip is None else steps.masked_fill_(skip, 0)


def renew_bases(maps: list[PreconditionedMap], skip: Tensor | None) -> None:
    """Improve the eigenbases of maps of one shape, and bring their moments into the new ones."""
    first, second = torch.stack([each.first for each in maps]), torch.stack([each.second for each in maps])
    for side in maps[0].sides:
        before = torch.stack([each.find(side, "basis") for each in maps])
        covariances = torch.stack([each.find(side, "covariance") for each in maps])
        bases, order = improve_eigenbases(covariances, before)
        first = _rotate(first, {side: before.mT @ bases})
        index, dim = (order[:, :, None], -2) if side == "row" else (order[:, None], -1)
        second = second.gather(dim, index.expand_as(second))
        _store([each.find(side, "basis") for each in maps], bases, skip)
    _store([each.first for each in maps], first, skip)
    _store([each.second for each in maps], second, skip)


def _rotate(matrices: Tensor, bases: dict[str, Tensor]) -> Tensor:
    """Express matrices, (k, rows, columns), in bases of their sides; in the old ones again if those are transposed."""
    for side, basis in bases.items():
        matrices = basis.mT @ matrices if side == "row" else matrices @ basis
    return matrices


def _multiply_sides(matrices: Tensor, side: str) -> Tensor:
    """Return the products of the rows, or of the columns, of each matrix with each other."""
    return matrices @ matrices.mT if side == "row" else matrices.mT @ matrices


def weigh(beta: float, skip: Tensor | None, kind: torch.dtype) -> tuple[Any, Any]:
    """Return the fraction of a mean that stays, and that of a new value; 1 and 0, on the device, in a skipped step."""
    if skip is None:
        return beta, 1 - beta
    kept = torch.where(skip, 1.0, torch.full_like(skip, beta, dtype=kind))
    return kept, torch.where(skip, 0.0, torch.full_like(skip, 1 - beta, dtype=kind))


def _store(targets: list[Tensor], values: Tensor, skip: Tensor | None) -> None:
    """Copy values into tensors, which stay unchanged in a skipped step."""
    if skip is not None:
        values = torch.where(skip, torch.stack(targets), values)
    torch._foreach_copy_(targets, list(values.unbind()))


def _find_shampoo_beta(group: dict[str, Any]) -> float:
    beta: float = group["betas"][1] if group["shampoo_beta"] is None else group["shampoo_beta"]
    return beta
