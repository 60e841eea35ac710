"""Rules that map the tensors of another library's models to those of a network here, in both directions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TensorRule:
    """One tensor here, and the tensors of the other library of whose rows it consists.

    Args:
        ours: name of the parameter in the network.
        theirs: names in the other library, in the order of their rows.
        transposed: True if the other library stores the transposed matrix.
        row: True if it stores the vector as a matrix of one row.
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False
    row: bool = False

    def to_theirs(self, tensor: Tensor) -> Tensor:
        """Return our tensor as the other library stores it."""
        if self.row:
            return tensor[None]
        return tensor.mT if self.transposed else tensor

    def to_ours(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the other library as it is stored here."""
        if self.row:
            return tensor[0]
        return tensor.mT if self.transposed else tensor


@dataclass(frozen=True)
class FixedTensor:
    """Tensor of the other library that has one possible value here, such as a table of sines.

    Args:
        theirs: its name there.
        value: its value.
        tolerance: largest difference, besides the rounding of its type, at which an imported tensor has that value;
            infinite if any will do.
        written: True if exported folders hold it; an imported one may lack it if they do not.
    """

    theirs: str
    value: Tensor
    tolerance: float = 0.0
    written: bool = True


@dataclass(frozen=True)
class RepeatedTensor:
    """Tensor that some folders of the other library repeat under a second name.

    Args:
        theirs: the second name.
        original: the first name.
        written: True if exported folders repeat it; imported ones may lack it in any case.
    """

    theirs: str
    original: str
    written: bool = False


@dataclass(frozen=True)
class ComputedTensor:
    """One tensor here that is a function of tensors of the other library; it is imported, never exported.

    Several of them may read one tensor, such as positions that all layers share there.

    Args:
        ours: name of the parameter in the network.
        theirs: shapes of the tensors that the function is given, by name and in its order. Empty = a constant.
        compute: the function; TensorMisfitError for values that no tensor here stands for.
    """

    ours: str
    theirs: Mapping[str, tuple[int, ...]]
    compute: Callable[..., Tensor]


Rule = TensorRule | FixedTensor | RepeatedTensor
"""Rules that serve both directions."""
ImportRule = Rule | ComputedTensor


class TensorMisfitError(ValueError):
    """Tensors that do not fit the rules; the message names them."""


def list_stacked_rows(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the rows of each map in the weights and biases that hold several, by the name of the parameter."""
    found: dict[str, tuple[int, ...]] = {}
    for prefix, module in network.named_modules():
        for name, rows in getattr(module, "stacked_rows", {}).items():
            path = f"{prefix}.{name}".lstrip(".")
            found |= {f"{path}.weight": tuple(rows), f"{path}.bias": tuple(rows)}
    return found


def export_tensors(network: nn.Module, rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Return the tensors of the other library, by name.

    Raises:
        TensorMisfitError: a rule names a parameter that the network lacks, or the network has one without a rule.
    """
    own, rows = dict(network.named_parameters(remove_duplicate=False)), list_stacked_rows(network)
    rules = list(rules)
    _check_own(network, rules)
    made: dict[str, Tensor] = {}
    for rule in rules:
        if isinstance(rule, FixedTensor) and rule.written:
            made[rule.theirs] = rule.value
        if isinstance(rule, RepeatedTensor) and rule.written:
            made[rule.theirs] = made[rule.original].clone()
        if not isinstance(rule, TensorRule):
            continue
        tensor = own[rule.ours].detach()
        parts = [tensor] if len(rule.theirs) == 1 else tensor.split(rows[rule.ours])
        for name, each in zip(rule.theirs, parts, strict=True):
            made[name] = rule.to_theirs(each).contiguous()
    return made


@torch.no_grad()
def import_tensors(network: nn.Module, rules: Iterable[ImportRule], given: Mapping[str, Tensor]) -> None:
    """Copy the tensors of the other library into a network.

    Raises:
        TensorMisfitError: a tensor is missing, left over, or of another shape; the message names each, or the first.
    """
    rules = list(rules)
    check_rules(network, rules, given)
    own = dict(network.named_parameters(remove_duplicate=False))
    for rule in rules:
        if isinstance(rule, TensorRule):
            parts = [given[name] for name in rule.theirs]
            own[rule.ours].copy_(torch.cat([rule.to_ours(each) for each in parts]))
        elif isinstance(rule, ComputedTensor):
            own[rule.ours].copy_(rule.compute(*(given[name] for name in rule.theirs)))
        elif rule.theirs in given:
            _check_value(rule, given)


def check_rules(network: nn.Module, rules: Iterable[ImportRule], given: Mapping[str, Tensor]) -> None:
    """Check names, shapes and types of tensors against the rules; the network may be without memory.

    Raises:
        TensorMisfitError: a tensor is missing, left over, or of another shape or type; the message names the first.
    """
    own, rows = dict(network.named_parameters(remove_duplicate=False)), list_stacked_rows(network)
    rules = list(rules)
    _check_own(network, rules)
    check_tensors(given, _list_shapes(own, rules, rows, given))
    read = [name for rule in rules if isinstance(rule, TensorRule | ComputedTensor) for name in rule.theirs]
    if other := [name for name in read if not given[name].is_floating_point()]:
        kind = str(given[other[0]].dtype).removeprefix("torch.")
        raise TensorMisfitError(f"{other[0]} holds numbers of type {kind}, but weights are floating-point numbers")


def _check_value(rule: FixedTensor | RepeatedTensor, given: Mapping[str, Tensor]) -> None:
    """Check a tensor that can only have one value."""
    if isinstance(rule, FixedTensor):
        value, other = rule.value, "the only value that the model can have here"
        tolerance = rule.tolerance + _get_rounding(given[rule.theirs]) * float(value.abs().max())
    else:
        value, tolerance, other = given[rule.original], 0.0, rule.original
    difference = float((given[rule.theirs].double() - value.double()).abs().max())
    if not difference <= tolerance:
        raise TensorMisfitError(f"{rule.theirs} differs by {difference:.3g} from {other}")


def _get_rounding(tensor: Tensor) -> float:
    """Return the relative rounding of a tensor's type."""
    return torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0


def _list_shapes(
    own: Mapping[str, Tensor],
    rules: Sequence[ImportRule],
    rows: Mapping[str, tuple[int, ...]],
    given: Mapping[str, Tensor],
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of the other library, by name, without optional ones that are not given."""
    wanted: dict[str, tuple[int, ...]] = {}
    for rule in rules:
        if isinstance(rule, FixedTensor):
            if rule.written or rule.theirs in given:
                wanted[rule.theirs] = tuple(rule.value.shape)
            continue
        if isinstance(rule, RepeatedTensor):
            if rule.theirs in given and rule.original in given:
                wanted[rule.theirs] = tuple(given[rule.original].shape)
            continue
        if isinstance(rule, ComputedTensor):
            wanted |= rule.theirs
            continue
        shape = tuple(own[rule.ours].shape)
        sizes = (shape[0],) if len(rule.theirs) == 1 else rows[rule.ours]
        for name, size in zip(rule.theirs, sizes, strict=True):
            wanted[name] = tuple(rule.to_theirs(torch.empty(size, *shape[1:], device="meta")).shape)
    return wanted


def _check_own(network: nn.Module, rules: Sequence[ImportRule]) -> None:
    """Check that the rules name every parameter of the network."""
    own = {name: id(each) for name, each in network.named_parameters(remove_duplicate=False)}
    named = [rule.ours for rule in rules if isinstance(rule, TensorRule | ComputedTensor)]
    if missing := [name for name in named if name not in own]:
        raise TensorMisfitError(f"the network has no {', '.join(missing[:3])}")
    covered = {own[name] for name in named}
    if rest := [name for name, number in own.items() if number not in covered]:
        raise TensorMisfitError(f"there is no counterpart of {', '.join(rest[:3])}")


def check_tensors(given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse tensors that are missing, left over or of other shapes than wanted, by a TensorMisfitError."""
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is left over" for name in given if name not in wanted]
    problems += [
        f"{name} has shape {tuple(given[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in given and tuple(given[name].shape) != shape
    ]
    if problems:
        more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise TensorMisfitError(f"its tensors do not fit: {'; '.join(problems[:SHOWN])}{more}")


SHOWN = 6
"""Tensors in a message."""
