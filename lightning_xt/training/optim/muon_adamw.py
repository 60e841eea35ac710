import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from lightning_xt.system.option_checks import check_option
from lightning_xt.training.optim.orthogonalization import choose_product_type, orthogonalize
from lightning_xt.training.optim.parameter_groups import list_parts
from lightning_xt.training.strategies.sharding import full_tensor_like, is_sharded, local_shard

NAME = "optimizer: MuonAdamW"


class MuonAdamW(Optimizer):
    """Muon for hidden matrices, which steps by orthogonalized momentum, and AdamW for everything else.

    Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/; weight decay and the scale match_rms_adamw: Liu et
    al., 2025, https://arxiv.org/abs/2502.16982
    The role of a parameter decides, see `parameter_groups`: Muon steps the weights of linear maps except the head;
    AdamW steps embeddings, heads, norms, biases and bare parameters of any shape, those of convolutions too. Maps in
    one weight, such as keys and values, are orthogonalized separately. Matrices of one shape, or its transpose, are
    orthogonalized in one batch.

    Args:
        params: groups of `parameter_groups`.
        lr: learning rate of the matrices.
        momentum: fraction of the momentum that stays at each step.
        nesterov: whether the momentum looks a step ahead.
        ns_steps: Newton-Schulz iterations of each step.
        weight_decay: of the matrices: each step subtracts the learning rate times this fraction of them.
        adjust_lr_fn: how the step of a matrix depends on its shape, as in torch.optim.Muon: original multiplies it by
            max(1, rows / columns) ** 0.5; match_rms_adamw by 0.2 * max(rows, columns) ** 0.5, so that it is about as
            large as AdamW's and takes AdamW's learning rates.
        adamw_lr: learning rate of the rest.
        adamw_betas: fractions of the mean gradient and of the mean squared gradient that stay at each step.
        adamw_eps: added to the root of the mean squared gradient.
        adamw_weight_decay: of an untied head; embeddings, norms and biases do not decay.
        embedding_lr: learning rate of the embeddings. None = adamw_lr.
        head_lr: learning rate of an untied head. None = adamw_lr.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.1,
        adjust_lr_fn: Literal["original", "match_rms_adamw"] = "original",
        adamw_lr: float = 3e-3,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
        adamw_weight_decay: float = 0.0,
        embedding_lr: float | None = None,
        head_lr: float | None = None,
    ) -> None:
        adamw = {"betas": tuple(adamw_betas), "eps": adamw_eps, "weight_decay": adamw_weight_decay}
        muon = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "weight_decay": weight_decay}
        self._by_role: dict[str, dict[str, Any]] = {
            "matrix": {"lr": lr, **muon, "adjust_lr_fn": adjust_lr_fn},
            "head": {"lr": adamw_lr if head_lr is None else head_lr, **adamw},
            "embedding": {"lr": adamw_lr if embedding_lr is None else embedding_lr, **adamw},
            "other": {"lr": adamw_lr, **adamw},
        }
        _check(self._by_role, adjust_lr_fn)
        super().__init__(params, {"lr": lr})
        self.found_inf: Tensor | None = None
        """Number on the device, as in torch's fused optimizers: 1 to skip a step with gradients that are not finite."""
        self._attach_adamw()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, by default with the options of its role; ValueError if it has no role, or a wrong one."""
        role = param_group.get("role") if isinstance(param_group, dict) else None
        if role not in self._by_role:
            raise ValueError(
                f"{NAME} was given parameters of the role {role!r}, but needs it to find matrices; give it "
                "parameter_groups(model)"
            )
        super().add_param_group({**self._by_role[role], **param_group})
        if role == "matrix":
            _check_matrices(self.param_groups[-1])
        if "_adamw" in self.__dict__:
            self._attach_adamw()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_by_role": self._by_role}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.found_inf = None
        self._attach_adamw()

    def _attach_adamw(self) -> None:
        """Let an AdamW of torch work on the groups and the state of this optimizer, not on copies."""
        groups = [group for group in self.param_groups if group["role"] != "matrix"]
        kinds = {p.device.type for group in groups for p in group["params"] if p.is_floating_point()}
        self._fused = kinds <= {"cpu", "cuda"}
        self._adamw = AdamW(groups, fused=self._fused or None) if groups else None
        if self._adamw is not None:
            self._adamw.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step, after the closure if there is one. Parameters without a gradient stay unchanged."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        skip = None if self.found_inf is None else self.found_inf > 0
        if skip is not None and not self._fused:
            if bool(skip):
                return loss
            skip = None
        for group in self.param_groups:
            if group["role"] == "matrix":
                self._step_matrices(group, skip)
        if self._adamw is not None:
            if self._fused:
                self._adamw.found_inf = self.found_inf  # type: ignore[attr-defined]
            self._adamw.step()
        return loss

    def _step_matrices(self, group: dict[str, Any], skip: Tensor | None) -> None:
        pairs = zip(group["params"], list_parts(group), strict=True)
        members = [(p, sizes) for p, sizes in pairs if p.grad is not None]
        if not members:
            return
        weights = [p for p, _ in members]
        for p in weights:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        # The local shard of a sharded weight.
        gradients = [_local(p.grad) for p in weights]
        buffers = [_local(self.state[p]["momentum_buffer"]) for p in weights]
        kept = 1 - group["lr"] * group["weight_decay"]
        if skip is not None:
            # Momentum that moves towards itself stays unchanged.
            gradients = [torch.where(skip, buffer, g) for buffer, g in zip(buffers, gradients, strict=True)]
            kept = torch.where(skip, 1.0, torch.full_like(skip, kept, dtype=torch.float64))
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, buffers, group["momentum"]) if group["nesterov"] else buffers
        torch._foreach_mul_([_local(p) for p in weights], kept)
        changes = list(zip(weights, updates, (sizes for _, sizes in members), strict=True))
        _step_full_matrices([change for change in changes if not is_sharded(change[0])], group, skip)
        _step_shards([change for change in changes if is_sharded(change[0])], group, skip)


Change = tuple[Tensor, Tensor, tuple[int, ...] | None]
"""A weight, its update, and the rows of each of its maps."""


def _local(tensor: Any) -> Tensor:
    """Return the part of a tensor in this process."""
    own: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return own


def _step_full_matrices(changes: list[Change], group: dict[str, Any], skip: Tensor | None) -> None:
    """Step weights by their updates, map by map."""
    maps: dict[Any, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for p, update, sizes in changes:
        pairs = zip(p.split(sizes), update.split(sizes), strict=True) if sizes else [(p, update)]
        for weight, change in pairs:
            maps[(min(weight.shape), max(weight.shape), p.dtype, p.device)].append((weight, change))
    for batch in maps.values():
        _step_maps(batch, group, skip)


def _step_shards(changes: list[Change], group: dict[str, Any], skip: Tensor | None) -> None:
    """Step sharded weights. Their updates are gathered, because only a full matrix can be orthogonalized."""
    shapes: dict[Any, list[Change]] = defaultdict(list)
    for change in changes:
        shapes[change[0].shape].append(change)
    # One shape after the other, so that few are gathered at a time.
    for some in shapes.values():
        updates = [full_tensor_like(p, update) for p, update, _ in some]
        steps = [torch.zeros_like(update) for update in updates]
        parts = [sizes for _, _, sizes in some]
        _step_full_matrices(list(zip(steps, updates, parts, strict=True)), group, skip)
        for (p, _, _), step in zip(some, steps, strict=True):
            p.add_(local_shard(step, p))


def _step_maps(batch: list[tuple[Tensor, Tensor]], group: dict[str, Any], skip: Tensor | None) -> None:
    """Step weights of one shape, or its transpose, by their orthogonalized updates."""
    weights, updates = [weight for weight, _ in batch], [update for _, update in batch]
    # As wide matrices, whose products are smaller.
    tall = [weight.shape[0] > weight.shape[1] for weight in weights]
    wide = torch.stack([update.mT if turned else update for update, turned in zip(updates, tall, strict=True)])
    directions = orthogonalize(wide.to(choose_product_type(wide)), group["ns_steps"]).to(wide.dtype)
    steps = (directions if skip is None else directions.masked_fill(skip, 0)).unbind()
    for turned in {*tall}:
        chosen = [number for number, each in enumerate(tall) if each == turned]
        rows, columns = weights[chosen[0]].shape
        torch._foreach_add_(
            [weights[number] for number in chosen],
            [steps[number].mT if turned else steps[number] for number in chosen],
            alpha=-group["lr"] * _scale(group["adjust_lr_fn"], rows, columns),
        )


def _scale(rule: str, rows: int, columns: int) -> float:
    return math.sqrt(max(1, rows / columns)) if rule == "original" else 0.2 * math.sqrt(max(rows, columns))


def _check(by_role: dict[str, dict[str, Any]], adjust_lr_fn: str) -> None:
    """Raise a ValueError for an option out of range."""
    muon, adamw = by_role["matrix"], by_role["other"]
    check_option(NAME, "momentum", muon["momentum"], least=0, below=1)
    # More Newton-Schulz steps cost time and change nothing.
    check_option(NAME, "ns_steps", muon["ns_steps"], least=1, below=100)
    check_option(NAME, "adamw_eps", adamw["eps"], least=0)
    for name, beta in zip(("the first of adamw_betas", "the second of adamw_betas"), adamw["betas"], strict=True):
        check_option(NAME, name, beta, least=0, below=1)
    for name, role in (("lr", "matrix"), ("adamw_lr", "other"), ("embedding_lr", "embedding"), ("head_lr", "head")):
        check_option(NAME, name, by_role[role]["lr"], least=0)
    for name, role in (("weight_decay", "matrix"), ("adamw_weight_decay", "head")):
        check_option(NAME, name, by_role[role]["weight_decay"], least=0)
    if adjust_lr_fn not in ("original", "match_rms_adamw"):
        raise ValueError(f"{NAME} has adjust_lr_fn {adjust_lr_fn!r}, which must be original or match_rms_adamw")


def _check_matrices(group: dict[str, Any]) -> None:
    """Raise a ValueError that names parameters that cannot be orthogonalized."""
    names = group.get("param_names") or [f"parameter {number}" for number in range(len(group["params"]))]
    others = [
        f"{name} {tuple(p.shape)}"
        for name, p in zip(names, group["params"], strict=True)
        if p.dim() != 2 or p.is_complex()
    ]
    if others:
        raise ValueError(
            f"{NAME} orthogonalizes matrices of real numbers, which {len(others)} of the parameters given to it as "
            f"matrices are not, such as {others[0]}; give those the role 'other', which AdamW steps"
        )
