"""Building of optimizers, with one sentence if one cannot be built or does not fit a checkpoint."""

import inspect
import math
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.optim import Optimizer, SparseAdam
from torch.optim.lr_scheduler import LambdaLR

from lightning_xt.training.optim.matrix_optimizer import MatrixOptimizer
from lightning_xt.training.optim.maximal_update import scale_rates
from lightning_xt.training.optim.parameter_groups import OptimizerFactory, parameter_groups

WAY_OUT = "change its options or choose another, such as --model.optimizer AdamW"
EXTRA = frozenset({"params", "param_names", "role", "parts", "initial_lr", "lr_factor"})
"""Keys of groups besides the options of the optimizer."""


def build_scaled(factory: OptimizerFactory, module: Any, name: str) -> Optimizer:
    """Build the optimizer of a module's parameters as `build_optimizer` does, with the rates of muP if it has rules.

    Args:
        factory: builds the optimizer from groups of parameters.
        module: a `TransformerModule`.
        name: name of the optimizer in messages.
    """
    groups, update = parameter_groups(module), module.maximal_update
    optimizer = build_optimizer(factory, groups, name)
    if update is not None:
        optimizer = build_optimizer(factory, update.split_groups(groups, optimizer, module.network), name)
        scale_rates(optimizer)
    return optimizer


def build_optimizer(factory: OptimizerFactory, groups: list[dict[str, Any]], name: str) -> Optimizer:
    """Build an optimizer that refuses the state of another one.

    ValueError if it cannot be built, takes only some of the parameters, or has an option that cannot train.
    """
    try:
        optimizer = factory([dict(group) for group in groups])
    except (TypeError, ValueError, RuntimeError) as error:
        named = [pair for group in groups for pair in group["params"]]
        refused = [f"{key} {tuple(p.shape)}" for key, p in named if not _accepts(factory, groups, key)]
        if 0 < len(refused) < len(named):
            more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
            raise ValueError(
                f"optimizer: {name} cannot be built for this model: {error}; it refuses {len(refused)} of the "
                f"{len(named)} parameters, {', '.join(refused[:3])}{more}; choose another, such as "
                "--model.optimizer MuonAdamW"
            ) from error
        raise ValueError(f"optimizer: {name} cannot be built for this model: {error}; {WAY_OUT}") from error
    if isinstance(optimizer, SparseAdam):
        # It would raise at its first step only.
        first = groups[0]["params"][0][0]
        raise ValueError(
            f"optimizer: {name} takes only sparse gradients, and those of {first} and all others are dense; {WAY_OUT}"
        )
    for group in optimizer.param_groups:
        if not math.isfinite(group.get("lr", 0)):
            raise ValueError(
                f"optimizer: {name} cannot be built with lr {group['lr']}, which is not a number; {WAY_OUT}"
            )
        kinds, eps = {p.dtype for p in group["params"]}, group.get("eps")
        if isinstance(eps, float) and eps and (lost := [k for k in kinds if not torch.tensor(eps, dtype=k)]):
            raise ValueError(
                f"optimizer: {name} divides by eps {eps} where a gradient is 0, and in {str(lost[0])[6:]}, the type of "
                "the weights, that rounds to 0; use --trainer.precision bf16-mixed or bf16-true, or a larger eps such "
                "as 1e-4"
            )
    optimizer.register_load_state_dict_pre_hook(_match_groups)
    return optimizer


class OptimizerOptions:
    """Options that an optimizer was built with: they hold, not those of the checkpoint that a command resumes.

    State that an optimizer of others keeps next to its options, such as the distance of Prodigy, is the checkpoint's.

    Args:
        optimizer: just built, before a checkpoint is loaded into it.
        scheduler: sets its learning rates. None = they are constant.
    """

    def __init__(self, optimizer: Optimizer, scheduler: LambdaLR | None) -> None:
        self.optimizer, self.scheduler = optimizer, scheduler
        self._groups = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]

    def apply(self) -> None:
        """Restore the options, and set the learning rates to those of the schedule at this step; report other ones."""
        before, known = self.optimizer.param_groups[0]["lr"], _list_options(self.optimizer)
        for group, built in zip(self.optimizer.param_groups, self._groups, strict=True):
            group.update({name: value for name, value in built.items() if known is None or name in known})
        of_step = by = ""
        if self.scheduler is not None:
            self.scheduler.base_lrs = [built["initial_lr"] for built in self._groups]
            factors = [rule(self.scheduler.last_epoch) for rule in self.scheduler.lr_lambdas]
            for group, base, factor in zip(self.optimizer.param_groups, self.scheduler.base_lrs, factors, strict=True):
                group["lr"] = base * factor
            of_step, by = f" of step {self.scheduler.last_epoch}", " by this schedule"
        now = self.optimizer.param_groups[0]["lr"]
        if not math.isclose(before, now, rel_tol=1e-6):
            rank_zero_info(
                f"the learning rate{of_step} is {now:.3g}{by} and {before:.3g} in the checkpoint: "
                "--trainer.max_steps, --model.schedule or the optimizer's lr has changed"
            )


def _list_options(optimizer: Optimizer) -> frozenset[str] | None:
    """List the keys of groups that are options, not state: those that constructors take; None = all keys."""
    if isinstance(optimizer, MatrixOptimizer):
        # Its constructors have other names for some.
        return None
    kinds = (kind for kind in type(optimizer).__mro__ if issubclass(kind, Optimizer))
    return EXTRA.union(*(inspect.signature(kind).parameters for kind in kinds))


def _accepts(factory: OptimizerFactory, groups: list[dict[str, Any]], name: str) -> bool:
    """Return True if an optimizer can be built for one parameter by itself."""
    group = next(group for group in groups if name in dict(group["params"]))
    try:
        factory([{**group, "params": [pair for pair in group["params"] if pair[0] == name]}])
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


def _match_groups(optimizer: Optimizer, saved: dict[str, Any]) -> dict[str, Any] | None:
    """Sort a saved state into the groups of this optimizer; None if they are the same."""
    here, there = optimizer.param_groups, saved["param_groups"]
    home = {name: group for group in there for name in group.get("param_names", ())}
    names = [name for group in here for name in group["param_names"]]
    if odd := sorted(home.keys() ^ {*names}):
        raise ValueError(
            f"the checkpoint's optimizer has other parameters than this command's model, {len(odd)} in all, such as "
            f"{odd[0]}; resume with its run's config.yaml, or begin a run with its weights: --init_from"
        )
    for group in here:
        built, found = ({*each} - EXTRA for each in (group, home[group["param_names"][0]]))
        # Versions of torch add options; another optimizer lacks some and has others.
        if found - built and built - found:
            raise ValueError(
                f"the checkpoint's optimizer is not this command's {type(optimizer).__name__}: it has "
                f"{min(found - built)} and no {min(built - found)}; resume with the optimizer of its run's config, "
                "or begin a run with its weights: --init_from"
            )
    if [group.get("param_names") for group in there] == [group["param_names"] for group in here]:
        return None
    # Another version may have grouped the parameters in another way.
    number_of = {name: number for number, name in enumerate(names)}
    groups = [{**group, "params": [number_of[name] for name in group["param_names"]]} for group in here]
    pairs = [pair for group in there for pair in zip(group["params"], group["param_names"], strict=True)]
    state = {number_of[name]: saved["state"][number] for number, name in pairs if number in saved["state"]}
    return {**saved, "state": state, "param_groups": groups}
