import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_xt.core.wide_floats import choose_widest
from lightning_xt.system.option_checks import check_option
from lightning_xt.training.optim.matrix_optimizer import MatrixOptimizer, Member, get_local
from lightning_xt.training.optim.orthogonalizers.base import LEAST_NORM, OrthogonalizerFactory, choose_product_type
from lightning_xt.training.optim.orthogonalizers.newton_schulz import NewtonSchulz
from lightning_xt.training.strategies.sharding import full_tensor_like, is_sharded, local_shard

LEAST_SQUARE = 1e-12
"""Mean squared step below which a row counts as 0."""


@dataclass(frozen=True)
class Map:
    """Weight to step, whole or a shard, or one of the maps in it.

    Args:
        weight: (rows, columns).
        update: momentum, of the same shape.
        neurons: (rows, 1), mean squared step of each row. None = not used.
        sizes: rows of each map in the weight. None = it is one map.
    """

    weight: Tensor
    update: Tensor
    neurons: Tensor | None
    sizes: tuple[int, ...] | None = None

    def split(self) -> list["Map"]:
        """Return the maps in a full weight, as views."""
        if not self.sizes:
            return [self]
        neurons = [None] * len(self.sizes) if self.neurons is None else self.neurons.split(self.sizes)
        pairs = zip(self.weight.split(self.sizes), self.update.split(self.sizes), neurons, strict=True)
        return [Map(*each) for each in pairs]


class MuonAdamW(MatrixOptimizer):
    """Muon for hidden matrices, which steps by orthogonalized momentum, and AdamW for everything else.

    Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/; weight decay and the scale match_rms_adamw: Liu et
    al., 2025, https://arxiv.org/abs/2502.16982
    The role of a parameter decides, see `parameter_groups`: Muon steps the weights of linear maps except gates and the
    head; AdamW steps embeddings, heads, gates, norms, biases and bare parameters of any shape, those of convolutions
    too. Maps in one weight, such as keys and values, are orthogonalized separately. Matrices of one shape, or its
    transpose, are orthogonalized in one batch.

    Args:
        params: groups of `parameter_groups`.
        lr: learning rate of the matrices.
        momentum: fraction of the momentum that stays at each step.
        nesterov: whether the momentum looks a step ahead.
        orthogonalizer: iteration that orthogonalizes.
        row_norm: whether each row of the momentum is divided by its norm before it is orthogonalized (MuonEq). Chang et
            al., 2026, https://arxiv.org/abs/2603.28254
        neuron_beta: fraction of the mean squared step of each neuron, a row of a matrix, that stays at each step; rows
            are divided by its root, and the norm of the step of the matrix stays (NorMuon). Li et al., 2025,
            https://arxiv.org/abs/2510.05491, where it is set to that of match_rms_adamw. None = rows stay.
        weight_decay: of the matrices: each step subtracts the learning rate times this fraction of them.
        cautious: whether only numbers decay that the step moves towards 0 anyway. Chen et al., 2025,
            https://arxiv.org/abs/2510.12402
        adjust_lr_fn: how the step of a matrix depends on its shape, as in torch.optim.Muon: original multiplies it by
            max(1, rows / columns) ** 0.5; match_rms_adamw by 0.2 * max(rows, columns) ** 0.5, so that it is about as
            large as AdamW's and takes AdamW's learning rates.
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
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        orthogonalizer: OrthogonalizerFactory = NewtonSchulz,
        row_norm: bool = False,
        neuron_beta: float | None = None,
        weight_decay: float = 0.1,
        cautious: bool = False,
        adjust_lr_fn: Literal["original", "match_rms_adamw"] = "original",
        adamw_lr: float = 3e-3,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
        adamw_weight_decay: float = 0.0,
        embedding_lr: float | None = None,
        head_lr: float | None = None,
    ) -> None:
        check_option(self.name, "momentum", momentum, least=0, below=1)
        if neuron_beta is not None:
            check_option(self.name, "neuron_beta", neuron_beta, least=0, below=1)
        if adjust_lr_fn not in ("original", "match_rms_adamw"):
            raise ValueError(
                f"{self.name} has adjust_lr_fn {adjust_lr_fn!r}, which must be original or match_rms_adamw"
            )
        self.orthogonalizer = orthogonalizer()
        matrix: dict[str, Any] = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "row_norm": row_norm}
        matrix |= {"neuron_beta": neuron_beta, "weight_decay": weight_decay, "cautious": cautious}
        adamw = {"lr": adamw_lr, "betas": adamw_betas, "eps": adamw_eps, "weight_decay": adamw_weight_decay}
        super().__init__(params, {**matrix, "adjust_lr_fn": adjust_lr_fn}, adamw, embedding_lr, head_lr)

    def measure_step(self, group: dict[str, Any], rows: int, columns: int) -> float | None:
        return _scale(group["adjust_lr_fn"], rows, columns)

    def measure_matrix_state(self, member: Member, group: dict[str, Any]) -> int:
        p, _ = member
        return (p.numel() + (0 if group["neuron_beta"] is None else len(p))) * p.element_size()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "orthogonalizer": self.orthogonalizer}

    def step_matrices(self, members: list[Member], group: dict[str, Any], skip: Tensor | None) -> None:
        weights = [p for p, _ in members]
        for p in weights:
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p)
            if group["neuron_beta"] is not None:
                # A resumed run may use it for the first time, and one that a checkpoint brings is whole.
                found = state.get("neuron_buffer", torch.zeros(len(p), 1, dtype=p.dtype, device=p.device))
                state["neuron_buffer"] = local_shard(found, p)
        # The local shard of a sharded weight.
        gradients = [get_local(p.grad) for p in weights]
        buffers = [get_local(self.state[p]["momentum_buffer"]) for p in weights]
        if skip is not None:
            # Momentum that moves towards itself stays unchanged.
            gradients = [torch.where(skip, buffer, g) for buffer, g in zip(buffers, gradients, strict=True)]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, buffers, group["momentum"]) if group["nesterov"] else buffers
        if not group["cautious"]:
            kept = 1 - group["lr"] * group["weight_decay"]
            if skip is not None:
                kept = torch.where(skip, 1.0, torch.full_like(skip, kept, dtype=choose_widest(skip.device)))
            torch._foreach_mul_([get_local(p) for p in weights], kept)
        shapes: dict[Any, list[Map]] = defaultdict(list)
        for p, update, (_, sizes) in zip(weights, updates, members, strict=True):
            # Sharded weights one shape after the other, so that few are gathered at a time.
            shapes[p.shape if is_sharded(p) else None].append(Map(p, update, self._find_neurons(p, group), sizes))
        for shape, maps in shapes.items():
            if shape is None:
                self._step_maps(maps, group, skip)
            else:
                self._step_shards(maps, group, skip)

    def _find_neurons(self, weight: Tensor, group: dict[str, Any]) -> Tensor | None:
        return None if group["neuron_beta"] is None else self.state[weight]["neuron_buffer"]

    def _step_shards(self, maps: list[Map], group: dict[str, Any], skip: Tensor | None) -> None:
        """Step sharded weights. Their updates are gathered, because only a full matrix can be orthogonalized."""
        full = []
        for each in maps:
            update = full_tensor_like(each.weight, each.update)
            neurons = None if each.neurons is None else full_tensor_like(each.neurons, get_local(each.neurons)).clone()
            full.append(Map(torch.zeros_like(update), update, neurons, each.sizes))
        # Weights of zeros do not decay, and become the difference.
        self._step_maps(full, group, skip)
        for each, stepped in zip(maps, full, strict=True):
            weight = get_local(each.weight)
            difference = get_local(local_shard(stepped.weight, each.weight))
            if group["cautious"]:
                _decay_cautiously([weight], [-difference], group, skip)
            weight.add_(difference)
            if each.neurons is not None and stepped.neurons is not None:
                get_local(each.neurons).copy_(get_local(local_shard(stepped.neurons, each.neurons)))

    def _step_maps(self, maps: list[Map], group: dict[str, Any], skip: Tensor | None) -> None:
        """Step full matrices by their updates, in one batch for each shape and its transpose."""
        batches: dict[Any, list[Map]] = defaultdict(list)
        for each in maps:
            for part in each.split():
                shape = part.weight.shape
                batches[(min(shape), max(shape), part.weight.dtype, part.weight.device)].append(part)
        for batch in batches.values():
            # Tall ones last, and turned: products of wide matrices are smaller.
            tall = [each for each in batch if each.weight.shape[0] > each.weight.shape[1]]
            wide = [each for each in batch if each.weight.shape[0] <= each.weight.shape[1]]
            stacked = torch.stack([*(each.update for each in wide), *(each.update.mT for each in tall)])
            if group["row_norm"]:
                _normalize_rows(stacked[: len(wide)])
                _normalize_rows(stacked[len(wide) :].mT)
            stacked = self.orthogonalizer(stacked.to(choose_product_type(stacked))).to(stacked.dtype)
            if skip is not None:
                stacked = stacked.masked_fill(skip, 0)
            for some, steps in ((wide, stacked[: len(wide)]), (tall, stacked[len(wide) :].mT)):
                if some:
                    _add_steps(some, steps, group, skip)


def _normalize_rows(updates: Tensor) -> None:
    """Divide each row of each matrix by its norm, in place."""
    precise = torch.promote_types(updates.dtype, torch.float32)
    updates.div_(torch.linalg.vector_norm(updates, dim=-1, keepdim=True, dtype=precise).clamp(min=LEAST_NORM))


def _add_steps(maps: list[Map], steps: Tensor, group: dict[str, Any], skip: Tensor | None) -> None:
    """Add orthogonalized steps, (k, rows, columns), to weights of one shape."""
    rows, columns = steps.shape[1:]
    buffers = [each.neurons for each in maps if each.neurons is not None]
    if buffers:
        steps = _scale_neurons(steps, buffers, group["neuron_beta"], skip)
    weights, each_step = [each.weight for each in maps], list(steps.unbind())
    if group["cautious"]:
        _decay_cautiously(weights, each_step, group, skip)
    alpha = -group["lr"] * _scale(group["adjust_lr_fn"], rows, columns)
    torch._foreach_add_(weights, each_step, alpha=alpha)


def _decay_cautiously(weights: list[Tensor], steps: list[Tensor], group: dict[str, Any], skip: Tensor | None) -> None:
    """Let those numbers decay that do not grow by the steps, which will be subtracted."""
    for weight, decays in zip(weights, torch._foreach_mul(weights, steps), strict=True):
        # To numbers, 1 where it decays.
        decays.ge_(0)
        if skip is not None:
            decays.masked_fill_(skip, 0)
        weight.addcmul_(weight, decays, value=-group["lr"] * group["weight_decay"])


def _scale_neurons(steps: Tensor, buffers: list[Tensor], beta: float, skip: Tensor | None) -> Tensor:
    """Divide each row by the root of its mean squared step, which is updated, and keep the norm of each matrix."""
    precise = torch.promote_types(steps.dtype, torch.float32)
    exact, neurons = steps.to(precise), torch.stack(buffers).to(precise)
    squares = exact.square().mean(dim=-1, keepdim=True)
    # A mean that moves towards itself stays unchanged.
    neurons = neurons.lerp(squares if skip is None else torch.where(skip, neurons, squares), 1 - beta)
    torch._foreach_copy_(buffers, list(neurons.unbind()))
    exact = exact * neurons.clamp(min=LEAST_SQUARE).rsqrt()
    wanted, norms = (
        each.square().sum(dim=(-2, -1), keepdim=True).clamp(min=LEAST_SQUARE) for each in (steps.to(precise), exact)
    )
    return (exact * (wanted / norms).sqrt()).to(steps.dtype)


def _scale(rule: str, rows: int, columns: int) -> float:
    return math.sqrt(max(1, rows / columns)) if rule == "original" else 0.2 * math.sqrt(max(rows, columns))
