"""Sharding: the weights of a network spread over processes, and gathered again."""

import sys
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

import torch
import torch.distributed
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from lightning_xt.models.sublayer import Sublayer

if TYPE_CHECKING:
    # Imported where they are used: they cost every command half a second of CPU time.
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Any) -> TypeGuard["DTensor"]:
    """Return whether a tensor is one process's shard of a larger one."""
    # No such tensor exists before its class does.
    return "torch.distributed.tensor" in sys.modules and isinstance(tensor, torch.distributed.tensor.DTensor)


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Leave each process a shard of every weight. The values are those of the first process, as under DDP.

    Each sublayer is gathered while it runs. Embedding tables and the head are gathered with the network, so that tied
    weights stay tied. A second call changes nothing.

    Raises:
        ValueError: a parameter cannot be sharded.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    if isinstance(network, FSDPModule):
        return
    for name, parameter in network.named_parameters():
        if parameter.dim() == 0:
            raise ValueError(
                f"--trainer.strategy FSDP2 cannot shard {name}, which is a single number; use --trainer.strategy "
                "ddp, or a part without it"
            )
    _broadcast_weights(network, mesh)
    for sublayer in [each for each in network.modules() if isinstance(each, Sublayer)]:
        fully_shard(sublayer, mesh=mesh, reshard_after_forward=True)
        if next(sublayer.residual.parameters(), None) is not None:
            # The last one reads its weights once more, after its forward.
            register_fsdp_forward_method(sublayer, "close")
    fully_shard(network, mesh=mesh, reshard_after_forward=False)
    sharded = _sharded_modules(network)
    for before, after in pairwise([*sharded, sharded[0]]):
        # Torch would infer the order from all forwards since the last step, whose number differs between processes.
        after.set_modules_to_backward_prefetch([before])
    for module in sharded:
        # The FLOP counter copies networks and expects this error; torch raises another one.
        type(module).__deepcopy__ = _refuse_copy  # type: ignore[attr-defined]
    network.register_load_state_dict_pre_hook(_load_shards)


def refuse_parameters(objective: nn.Module) -> None:
    """Raise a ValueError if an objective has parameters, which are not sharded, so that processes would differ."""
    if any(True for _ in objective.parameters()):
        raise ValueError(
            f"--trainer.strategy FSDP2 shards the network only, but the objective, {type(objective).__name__}, has "
            "parameters too; use --trainer.strategy ddp, or omit its auxiliaries"
        )


def gather(module: nn.Module) -> None:
    """Gather all weights of a module in each process until `reshard`, so that forwards wait for nobody."""
    # Tensors made in inference mode could not be trained later.
    with torch.inference_mode(False), torch.no_grad():
        for each in _sharded_modules(module):
            # Otherwise the first forward would make the state that the groups share.
            each._get_fsdp_state()._lazy_init()
            each.set_reshard_after_forward(False, recurse=False)
            each.unshard()


def reshard(module: nn.Module) -> None:
    """Leave each process its shard of a module again. Without an earlier `gather` it changes nothing."""
    with torch.inference_mode(False), torch.no_grad():
        for each in _sharded_modules(module):
            each.set_reshard_after_forward(isinstance(each, Sublayer), recurse=False)
            each.reshard()


def full_state(state: dict[str, Any], keep: bool) -> dict[str, Any]:
    """Gather the shards of a module's or an optimizer's state into full tensors on the CPU. All processes must call it.

    A process that does not `keep` the result gets nothing.
    """
    from torch.distributed.tensor import DTensor

    def gather_tensor(shard: DTensor) -> Tensor | None:
        tensor = shard.full_tensor()
        return tensor.cpu() if keep else None

    found = apply_to_collection(state, DTensor, gather_tensor)
    return dict(found) if keep else {}


def local_shard(value: Tensor, like: Tensor) -> Tensor:
    """Return this process's shard of a full tensor, which all processes have, sharded as `like` is, if at all."""
    if not is_sharded(like) or is_sharded(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    # All processes have it: nothing is sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def full_tensor_like(like: Tensor, shard: Tensor) -> Tensor:
    """Gather a full tensor, sharded as `like` is, from the shards of all processes. All processes must call it."""
    if not is_sharded(like):
        return shard
    from torch.distributed.tensor import DTensor

    sharded = DTensor.from_local(shard, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
    return sharded.full_tensor()


def shard_optimizer_state(saved: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Shard an optimizer's full `state_dict` as its parameters are sharded; both have the groups in one order."""
    state = dict(saved["state"])
    for there, here in zip(saved["param_groups"], groups, strict=True):
        for number, parameter in zip(there["params"], here["params"], strict=True):
            if number in state:
                state[number] = {
                    # Counts of steps are not sharded.
                    name: local_shard(value, parameter) if getattr(value, "shape", None) == parameter.shape else value
                    for name, value in state[number].items()
                }
    return {**saved, "state": state}


def _sharded_modules(module: nn.Module) -> list["FSDPModule"]:
    """List the modules whose weights are gathered at once, the outermost first."""
    from torch.distributed.fsdp import FSDPModule

    return [each for each in module.modules() if isinstance(each, FSDPModule)]


def _broadcast_weights(network: nn.Module, mesh: DeviceMesh) -> None:
    group = mesh.get_group()
    first = torch.distributed.get_global_rank(group, 0)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            values = tensor.detach().to(mesh.device_type)
            torch.distributed.broadcast(values, first, group=group)
            tensor.copy_(values)


def _load_shards(network: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Shard the full weights of a checkpoint."""
    reshard(network)
    for name, parameter in network.named_parameters(prefix.removesuffix("."), remove_duplicate=False):
        if name in state and state[name].shape == parameter.shape:
            state[name] = local_shard(state[name], parameter)


def _refuse_copy(*_: Any) -> NoReturn:
    raise NotImplementedError("sharded weights cannot be copied")
