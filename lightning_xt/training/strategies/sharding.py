"""Shares the weights of a network out over processes, and brings them together again."""

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
    """Leaves each process a share of every weight; all see the first one's values, as under DDP.

    Sublayers come together one by one, each while it is used, and the rest, the tables of embeddings and the head,
    with the network as a full_state: so tied weights stay one. Called again it changes nothing.

    Args:
        network: what is trained.
        mesh: the processes.

    Raises:
        ValueError: a parameter cannot be shared out.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if isinstance(network, FSDPModule):
        return
    for name, parameter in network.named_parameters():
        if parameter.dim() == 0:
            raise ValueError(
                f"--trainer.strategy FSDP2 cannot share out {name}, which is a single number; use --trainer.strategy "
                "ddp, or a part without it"
            )
    _broadcast_weights(network, mesh)
    for sublayer in [each for each in network.modules() if isinstance(each, Sublayer)]:
        fully_shard(sublayer, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=False)
    sharded = _sharded_modules(network)
    for before, after in pairwise([*sharded, sharded[0]]):
        # Torch would guess the order from all forwards since the last step, and processes decode differently many.
        after.set_modules_to_backward_prefetch([before])
    for module in sharded:
        # What counts FLOPs copies networks, and is prepared for those that cannot be; torch's own error is another.
        type(module).__deepcopy__ = _refuse_copy  # type: ignore[attr-defined]
    network.register_load_state_dict_pre_hook(_load_shards)


def gather(module: nn.Module) -> None:
    """Has each process keep all weights until `reshard`: forwards then wait for nobody.

    Args:
        module: what holds the network.
    """
    # Weights that are made while nothing may be trained could not be trained later.
    with torch.inference_mode(False), torch.no_grad():
        for each in _sharded_modules(module):
            # Else what the groups share would only be made by the first forward.
            each._get_fsdp_state()._lazy_init()
            each.set_reshard_after_forward(False, recurse=False)
            each.unshard()


def reshard(module: nn.Module) -> None:
    """Leaves each process its share again; called without `gather` it changes nothing.

    Args:
        module: what holds the network.
    """
    with torch.inference_mode(False), torch.no_grad():
        for each in _sharded_modules(module):
            each.set_reshard_after_forward(isinstance(each, Sublayer), recurse=False)
            each.reshard()


def full_state(state: dict[str, Any], keep: bool) -> dict[str, Any]:
    """The same with full_state tensors on the CPU in place of shares, as one process has it; all processes must ask.

    Args:
        state: of a module or an optimizer.
        keep: whether this process needs it; else it gets nothing.
    """
    from torch.distributed.tensor import DTensor

    def gather_tensor(share: DTensor) -> Tensor | None:
        tensor = share.full_tensor()
        return tensor.cpu() if keep else None

    found = apply_to_collection(state, DTensor, gather_tensor)
    return dict(found) if keep else {}


def local_shard(value: Tensor, like: Tensor) -> Tensor:
    """This process's share of a full_state tensor.

    Args:
        value: the same in all processes.
        like: shared out as the result is to be; where it is not, neither is the result.
    """
    if not is_sharded(like) or is_sharded(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    # All have it: nothing is sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def full_tensor_like(like: Tensor, share: Tensor) -> Tensor:
    """A full_state tensor of the shares of all processes, which all must ask for.

    Args:
        like: shared out as it is.
        share: this process's part of it.
    """
    if not is_sharded(like):
        return share
    from torch.distributed.tensor import DTensor

    shared = DTensor.from_local(share, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
    return shared.full_tensor()


def shard_optimizer_state(saved: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """An optimizer's full_state state as shares, as its parameters are shared out.

    Args:
        saved: as the optimizer's `state_dict` has it, its groups in the optimizer's order.
        groups: the optimizer's.
    """
    state = dict(saved["state"])
    for there, here in zip(saved["param_groups"], groups, strict=True):
        for number, parameter in zip(there["params"], here["params"], strict=True):
            if number in state:
                state[number] = {
                    # What counts steps is no share of anything.
                    name: local_shard(value, parameter) if getattr(value, "shape", None) == parameter.shape else value
                    for name, value in state[number].items()
                }
    return {**saved, "state": state}


def _sharded_modules(module: nn.Module) -> list["FSDPModule"]:
    """The modules whose weights come together at once, the outermost first."""
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
    """Turns what a full_state checkpoint has for the network into shares."""
    reshard(network)
    for name, parameter in network.named_parameters(prefix.removesuffix("."), remove_duplicate=False):
        if name in state and state[name].shape == parameter.shape:
            state[name] = local_shard(state[name], parameter)


def _refuse_copy(*_: Any) -> NoReturn:
    raise NotImplementedError("weights that are shared out over processes cannot be copied")
