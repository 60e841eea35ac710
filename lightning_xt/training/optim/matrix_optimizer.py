"""Base of the optimizers that step matrices in their own way and everything else by AdamW."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from lightning_xt.system.option_checks import check_option
from lightning_xt.training.optim.parameter_groups import list_parts
from lightning_xt.training.strategies.sharding import is_sharded

Member = tuple[Tensor, tuple[int, ...] | None]
"""A weight, whole or this process's shard, and the rows of each of its maps; None = it is one map."""


class MatrixOptimizer(Optimizer):
    """Base of optimizers for groups of `parameter_groups`: matrices are stepped by a subclass, the rest by AdamW.

    Args:
        params: groups of `parameter_groups`.
        matrix: options of the role matrix: lr, weight_decay and those of the subclass. They are in checkpoints.
        adamw: options of all other roles: lr, betas, eps, weight_decay.
        embedding_lr: learning rate of the embeddings. None = that of adamw.
        head_lr: learning rate of an untied head. None = that of adamw.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        matrix: dict[str, Any],
        adamw: dict[str, Any],
        embedding_lr: float | None,
        head_lr: float | None,
    ) -> None:
        adamw = {**adamw, "betas": tuple(adamw["betas"])}
        self._by_role: dict[str, dict[str, Any]] = {
            "matrix": matrix,
            "head": adamw if head_lr is None else {**adamw, "lr": head_lr},
            "embedding": adamw if embedding_lr is None else {**adamw, "lr": embedding_lr},
            "other": adamw,
        }
        self._check_options(embedding_lr, head_lr)
        super().__init__(params, {"lr": matrix["lr"]})
        self.found_inf: Tensor | None = None
        """Number on the device, as in torch's fused optimizers: 1 to skip a step with gradients that are not finite."""
        self._attach_adamw()

    @abstractmethod
    def step_matrices(self, members: list[Member], group: dict[str, Any], skip: Tensor | None) -> None:
        """Step weights that have a gradient.

        Args:
            members: the weights.
            group: their options.
            skip: truth on the device: neither weights nor state may change if True. None = False.
        """

    def measure_step(self, group: dict[str, Any], rows: int, columns: int) -> float | None:
        """Return the largest singular value of a step of a matrix, up to a factor of all shapes; None if unknown."""
        return None

    def measure_matrix_state(self, member: Member, group: dict[str, Any]) -> int:
        """Return the bytes of the state of a weight that `step_matrices` steps, by default those of two values each."""
        return 2 * member[0].numel() * member[0].element_size()

    def measure_state(self) -> int:
        """Return the bytes of the state of all parameters once they have been stepped."""
        total = 0
        for group in self.param_groups:
            for p, sizes in zip(group["params"], list_parts(group), strict=True):
                adamw = 2 * p.numel() * p.element_size()
                total += self.measure_matrix_state((p, sizes), group) if group["role"] == "matrix" else adamw
        return total

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"optimizer: {type(self).__name__}"

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, by default with the options of its role; ValueError if it has no role, or a wrong one."""
        role = param_group.get("role") if isinstance(param_group, dict) else None
        if role not in self._by_role:
            raise ValueError(
                f"{self.name} was given parameters of the role {role!r}, but needs it to find matrices; give it "
                "parameter_groups(model)"
            )
        super().add_param_group({**self._by_role[role], **param_group})
        if role == "matrix":
            self._check_matrices(self.param_groups[-1])
        if "_adamw" in self.__dict__:
            self._attach_adamw()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_by_role": self._by_role}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.found_inf = None
        self._attach_adamw()

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
                pairs = zip(group["params"], list_parts(group), strict=True)
                if members := [(p, sizes) for p, sizes in pairs if p.grad is not None]:
                    self.step_matrices(members, group, skip)
        if self._adamw is not None:
            if self._fused:
                self._adamw.found_inf = self.found_inf  # type: ignore[attr-defined]
            self._adamw.step()
        return loss

    def _attach_adamw(self) -> None:
        """Let an AdamW of torch work on the groups and the state of this optimizer, not on copies."""
        groups = [group for group in self.param_groups if group["role"] != "matrix"]
        kinds = {p.device.type for group in groups for p in group["params"] if p.is_floating_point()}
        self._fused = kinds <= {"cpu", "cuda"}
        self._adamw = AdamW(groups, fused=self._fused or None) if groups else None
        if self._adamw is not None:
            self._adamw.state = self.state

    def _check_options(self, embedding_lr: float | None, head_lr: float | None) -> None:
        """Raise a ValueError for an option out of range."""
        matrix, adamw = self._by_role["matrix"], self._by_role["other"]
        check_option(self.name, "adamw_eps", adamw["eps"], least=0)
        for name, beta in zip(("the first of adamw_betas", "the second of adamw_betas"), adamw["betas"], strict=True):
            check_option(self.name, name, beta, least=0, below=1)
        rates = {"lr": matrix["lr"], "adamw_lr": adamw["lr"], "embedding_lr": embedding_lr, "head_lr": head_lr}
        decays = {"weight_decay": matrix["weight_decay"], "adamw_weight_decay": adamw["weight_decay"]}
        for name, value in {**rates, **decays}.items():
            if value is not None:
                check_option(self.name, name, value, least=0)

    def _check_matrices(self, group: dict[str, Any]) -> None:
        """Raise a ValueError that names parameters that are not matrices of real numbers."""
        names = group.get("param_names") or [f"parameter {number}" for number in range(len(group["params"]))]
        others = [
            f"{name} {tuple(p.shape)}"
            for name, p in zip(names, group["params"], strict=True)
            if p.dim() != 2 or p.is_complex()
        ]
        if others:
            raise ValueError(
                f"{self.name} steps matrices of real numbers, which {len(others)} of the parameters given to it as "
                f"matrices are not, such as {others[0]}; give those the role 'other', which AdamW steps"
            )


def get_local(tensor: Any) -> Tensor:
    """Return the part of a tensor in this process, of which it is a view."""
    own: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return own
