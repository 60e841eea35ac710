"""Groups of a model's parameters that optimizers treat differently."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer

from lightning_xt.nn.heads.base import Head

Role = Literal["matrix", "head", "embedding", "other"]
"""Role of a parameter.

    matrix      the weight of a linear map, and each matrix that an adapter adds to any: decays
    head        those of the linear map to the logits: decay
    embedding   a table of embeddings; a head that shares it included: does not decay
    other       norms, biases, gates and every bare parameter: does not decay
"""

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
"""Called with `parameter_groups(model)`, like the classes of torch.optim that take groups."""


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return a group for each role that has parameters. Every trained parameter is in exactly one.

    A group has the keys `params`, a list of (name, parameter), which torch keeps as `param_names`; `role`; and
    `weight_decay: 0.0` if nothing decays. Without that key the group takes the optimizer's weight decay. If weights
    hold several maps one below the other, `parts` has the rows of each by the weight's name.

    A module declares such maps by an attribute `stacked_rows`, such as {"to_qkv": (512, 512, 512)}, by the name of a
    linear map or of a matrix. By an attribute `gate_maps`, such as ("to_gate",), it declares linear maps that make a
    few numbers for each token, such as a gate per head or the scores of a router, and no features: their weights have
    the role other.

    Args:
        model: owner of the parameters. Frozen ones are omitted.
    """
    sorted_out: dict[Role, list[tuple[str, nn.Parameter]]] = {"matrix": [], "head": [], "embedding": [], "other": []}
    for name, parameter, role in _roles(model):
        sorted_out[role].append((name, parameter))
    parts = list_stacked_rows(model)
    groups: list[dict[str, Any]] = []
    for role, members in sorted_out.items():
        if not members:
            continue
        groups.append({"params": members, "role": role})
        if role in ("embedding", "other"):
            groups[-1]["weight_decay"] = 0.0
        if role == "matrix" and (known := {name: parts[id(p)] for name, p in members if id(p) in parts}):
            groups[-1]["parts"] = known
    return groups


def list_parts(group: dict[str, Any]) -> list[tuple[int, ...] | None]:
    """List the rows of each map in each weight of an optimizer's group; None for a weight that is one map."""
    parts = group.get("parts", {})
    names = group.get("param_names") or [None] * len(group["params"])
    return [parts.get(name) for name in names]


def _roles(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, Role]]:
    # A tied head holds the embedding table too, which stays an embedding table.
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    matrices = {id(p) for linear in linears for p in linear.parameters(recurse=False) if p.dim() == 2}
    matrices -= {id(weight) for weight in _list_gates(model)}
    heads = {id(p) for module in model.modules() if isinstance(module, Head) for p in module.parameters()}
    # `named_parameters` yields a shared parameter once, under its first name.
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in tables:
            yield name, parameter, "embedding"
        elif id(parameter) in matrices:
            yield name, parameter, "head" if id(parameter) in heads else "matrix"
        else:
            yield name, parameter, "other"


def _list_gates(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        for name in getattr(module, "gate_maps", ()):
            # Some layers do without.
            if getattr(module, name) is not None:
                yield getattr(module, name).weight


def list_stacked_rows(model: nn.Module) -> dict[int, tuple[int, ...]]:
    """Return the rows of each map in the weights that hold several, by the id of the weight."""
    found = {}
    for module in model.modules():
        for name, rows in getattr(module, "stacked_rows", {}).items():
            weight = getattr(module, name)
            if isinstance(weight, nn.Linear):
                weight = weight.weight
            if sum(rows) != len(weight):
                raise ValueError(
                    f"{type(module).__name__}.stacked_rows says that {name} holds maps of {tuple(rows)} rows, but its "
                    f"weight has {len(weight)}; they must add up"
                )
            found[id(weight)] = tuple(rows)
    return found
