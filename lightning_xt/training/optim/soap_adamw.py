import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lightning_xt.core.wide_floats import choose_widest
from lightning_xt.system.option_checks import check_option
from lightning_xt.training.optim.matrix_optimizer import MatrixOptimizer, Member, get_local
from lightning_xt.training.optim.preconditioned_map import (
    PreconditionedMap,
    find_first_bases,
    renew_bases,
    step_maps,
    weigh,
)
from lightning_xt.training.strategies.sharding import full_tensor_like, is_sharded, local_shard


class SOAPAdamW(MatrixOptimizer):
    """SOAP for hidden matrices, which is Adam in the eigenbases of Shampoo's preconditioner, and AdamW for the rest.

    Vyas et al., 2024, https://arxiv.org/abs/2409.11321
    The role of a parameter decides, see `parameter_groups`: SOAP steps the weights of linear maps except gates and the
    head; AdamW steps embeddings, heads, gates, norms, biases and bare parameters of any shape, those of convolutions
    too. Maps in one weight, such as keys and values, have separate eigenbases. Matrices of one shape are stepped in one
    batch. Products and state are in float32, or in float64 for weights of that type.

    The first step of a matrix whose gradient is not zero only finds its first eigenbases. It waits for the device,
    later ones do not. As in the authors' code, new bases are sorted by their estimated eigenvalues, and the mean
    squared gradient with them. Departures: eps is added after the correction of the bias, and weights decay before the
    step, as in torch's AdamW; directions without any gradient get basis vectors that do not depend on rounding errors.
    A skipped step still counts towards `precondition_every`, as it does in schedules of the learning rate.

    Under FSDP2 each process holds the whole state of the matrices and computes their whole steps.

    Args:
        params: groups of `parameter_groups`.
        lr: learning rate of the matrices.
        soap_betas: fractions of the mean gradient and of the mean squared gradient that stay at each step, of matrices.
            Not betas: a config that names another class keeps options of one name, and AdamW's would not fit.
        shampoo_beta: fraction of the covariances of gradients that stays at each step. None = the second of soap_betas.
        eps: added to the root of the mean squared gradient.
        weight_decay: of the matrices: each step subtracts the learning rate times this fraction of them.
        precondition_every: steps between new eigenbases; the paper's frequency.
        max_dim: longest side of a map with an eigenbasis; longer ones keep the identity.
        adamw_lr: learning rate of the rest.
        adamw_betas: fractions of the mean gradient and of the mean squared gradient that stay at each step.
        adamw_eps: added to the root of the mean squared gradient.
        adamw_weight_decay: of an untied head; embeddings, norms, biases and gates do not decay.
        embedding_lr: learning rate of the embeddings. None = adamw_lr.
        head_lr: learning rate of an untied head. None = adamw_lr.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 3e-3,
        soap_betas: tuple[float, float] = (0.95, 0.95),
        shampoo_beta: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_every: int = 10,
        max_dim: int = 4096,
        adamw_lr: float = 3e-3,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
        adamw_weight_decay: float = 0.0,
        embedding_lr: float | None = None,
        head_lr: float | None = None,
    ) -> None:
        check_option(self.name, "eps", eps, least=0)
        check_option(self.name, "precondition_every", precondition_every, least=1)
        check_option(self.name, "max_dim", max_dim, least=1)
        first, second = soap_betas
        fractions = {"the first of soap_betas": first, "the second of soap_betas": second, "shampoo_beta": shampoo_beta}
        for name, value in fractions.items():
            check_option(self.name, name, value, least=0, below=1)
        matrix = {"lr": lr, "betas": tuple(soap_betas), "shampoo_beta": shampoo_beta, "eps": eps}
        matrix |= {"weight_decay": weight_decay, "precondition_every": precondition_every, "max_dim": max_dim}
        adamw = {"lr": adamw_lr, "betas": adamw_betas, "eps": adamw_eps, "weight_decay": adamw_weight_decay}
        super().__init__(params, matrix, adamw, embedding_lr, head_lr)

    def measure_matrix_state(self, member: Member, group: dict[str, Any]) -> int:
        p, sizes = member
        sides = [side for rows in (sizes or p.shape[:1]) for side in (rows, p.shape[1]) if 1 < side <= group["max_dim"]]
        # A covariance and its basis of each side.
        return (2 * p.numel() + sum(2 * side**2 for side in sides)) * _choose_type(p).itemsize

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state. That of matrices stays whole and in its type, which torch would make that of the weights."""
        # After the hooks that sort the groups of another version.
        saved: dict[str, Any] = {}
        handle = self.register_load_state_dict_pre_hook(lambda _, state: saved.update(state))
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        for there, here in zip(saved["param_groups"], self.param_groups, strict=True):
            for number, p in zip(there["params"], here["params"], strict=True):
                if here["role"] == "matrix" and number in saved["state"]:
                    self.state[p] = {name: _restore(value, p, name) for name, value in saved["state"][number].items()}

    def step_matrices(self, members: list[Member], group: dict[str, Any], skip: Tensor | None) -> None:
        shapes: dict[Any, list[Member]] = defaultdict(list)
        for p, sizes in members:
            # Sharded weights one shape after the other, so that few are gathered at a time.
            shapes[p.shape if is_sharded(p) else None].append((p, sizes))
        for some in shapes.values():
            self._step_weights(some, group, skip)

    def _step_weights(self, members: list[Member], group: dict[str, Any], skip: Tensor | None) -> None:
        gradients = {p: full_tensor_like(p, get_local(p.grad)).to(_choose_type(p)) for p, _ in members}
        new = [(p, _has_basis(p, sizes, group["max_dim"])) for p, sizes in members if p not in self.state]
        begun = self._select_nonzero([p for p, waits in new if waits], gradients, skip)
        for p, waits in new:
            if p in begun or not waits:
                moments = {"exp_avg": torch.zeros_like(gradients[p]), "exp_avg_sq": torch.zeros_like(gradients[p])}
                step = torch.zeros((), dtype=torch.float32, device=p.device)
                self.state[p] = {"step": step, "calls": 0, **moments}
        maps = {p: _split(gradients[p], self.state[p], sizes) for p, sizes in members if p in self.state}
        for batch in _sort_by_shape([each for p in maps if p in begun for each in maps[p]]):
            find_first_bases(batch, group)
        stepped = {p: own for p, own in maps.items() if p not in begun}
        if stepped:
            self._step_maps(stepped, group, skip)

    def _select_nonzero(
        self, weights: list[Tensor], gradients: dict[Tensor, Tensor], skip: Tensor | None
    ) -> set[Tensor]:
        """Select the weights whose first eigenbases this step finds; ValueError if a gradient is not finite."""
        # It reads from the device, for which the eigendecompositions wait anyway.
        if not weights or (skip is not None and bool(skip)):
            return set()
        squares = torch.stack([gradients[p].square().sum() for p in weights]).tolist()
        if not all(map(math.isfinite, squares)):
            raise ValueError(
                f"{self.name} finds its first eigenbases from gradients that are not finite; skip steps with such "
                "gradients, as the callback NonFinite does"
            )
        return {p for p, square in zip(weights, squares, strict=True) if square}

    def _step_maps(
        self, maps: dict[Tensor, list[PreconditionedMap]], group: dict[str, Any], skip: Tensor | None
    ) -> None:
        """Step weights by their maps, in one batch for each shape."""
        states = [self.state[p] for p in maps]
        taken = torch.ones_like(states[0]["step"]) if skip is None else (~skip).to(torch.float32)
        torch._foreach_add_([state["step"] for state in states], [taken] * len(states))
        for state in states:
            state["calls"] += 1
        steps: dict[int, Tensor] = {}
        for batch in _sort_by_shape([each for own in maps.values() for each in own]):
            steps |= zip(map(id, batch), step_maps(batch, group, skip).unbind(), strict=True)
            if due := [each for each in batch if each.sides and each.state["calls"] % group["precondition_every"] == 0]:
                renew_bases(due, skip)
        weights = [get_local(p) for p in maps]
        widest = choose_widest(weights[0].device)
        kept, _ = weigh(1 - group["lr"] * group["weight_decay"], skip, widest)
        torch._foreach_mul_(weights, kept)
        torch._foreach_add_(weights, [_join(p, [steps[id(each)] for each in own]) for p, own in maps.items()])


def _has_basis(p: Tensor, sizes: tuple[int, ...] | None, max_dim: int) -> bool:
    """Return True if a side of a map in a weight has an eigenbasis."""
    return any(1 < length <= max_dim for length in (*(sizes or p.shape[:1]), p.shape[1]))


def _split(gradient: Tensor, state: dict[str, Any], sizes: tuple[int, ...] | None) -> list[PreconditionedMap]:
    """Split a weight's gradient and state into its maps, as views."""
    parts = sizes or (len(gradient),)
    split = (each.split(parts) for each in (gradient, state["exp_avg"], state["exp_avg_sq"]))
    return [PreconditionedMap(number, state, *each) for number, each in enumerate(zip(*split, strict=True))]


def _sort_by_shape(maps: list[PreconditionedMap]) -> list[list[PreconditionedMap]]:
    """Sort maps into batches that are stepped together."""
    batches: dict[Any, list[PreconditionedMap]] = defaultdict(list)
    for each in maps:
        batches[each.gradient.shape, each.gradient.dtype, each.gradient.device, each.sides].append(each)
    return list(batches.values())


def _join(p: Tensor, steps: list[Tensor]) -> Tensor:
    """Return this process's shard of the steps of all maps in a weight, in its type."""
    return get_local(local_shard(steps[0] if len(steps) == 1 else torch.cat(steps), p)).to(p.dtype)


def _choose_type(p: Tensor) -> torch.dtype:
    """Choose the type of products and state."""
    return torch.float64 if p.dtype == torch.float64 else torch.float32


def _restore(value: Any, p: Tensor, name: str) -> Any:
    """Return a value of a saved state, whole, on the device of its weight and in the type of products."""
    if not isinstance(value, Tensor):
        return value
    full = value.full_tensor() if is_sharded(value) else value
    return full.to(p.device, None if name == "step" else _choose_type(p))
