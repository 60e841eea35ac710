"""Bytes that GPUs send in an optimizer step, by counting on paper; rows of scaling.py.

    communication_ddp             gradients are averaged (all-reduce); optimizers need nothing more
    communication_fsdp2_adamw     weights are gathered in the forward and again in the backward, gradients are averaged
                                  and scattered; AdamW steps shards
    communication_fsdp2_muon      MuonAdamW gathers the update of each matrix besides
    communication_fsdp2_normuon   with `neuron_beta` too: its number for each row is gathered as well
    communication_fsdp2_soap      SOAPAdamW gathers the gradient of each matrix; its state is whole in each process

Sizes are those of the parameters of --config, by name and type. FSDP2 gathers each sublayer by itself, twice, and the
rest with the network, once; rows are padded to a multiple of the processes. A step has one batch, in which each
sublayer runs once. `value` is what a GPU sends, and receives, if every collective is a ring over all GPUs, of which
there are W: 2 (W - 1) / W of the bytes of an all-reduce, and (W - 1) / W of those of a gathered or scattered tensor. As
much leaves each node, whatever the number of its GPUs. The number of targets of a step and the sum of their losses are
added up. The norm of the gradients takes a number for each parameter under FSDP2; logged values, at some steps only,
are omitted. FSDP2 shards over all processes; hybrid shards (HSDP) do not exist here.

`CollectiveCounter` counts the bytes of the collectives that a step really calls, for a comparison with these.
"""

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from common import say
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_xt.models.sublayer import Sublayer
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.optim.parameter_groups import parameter_groups

CONFIGS = Path(__file__).parents[1] / "configs"
Traffic = dict[str, int]
"""Bytes of the full tensors that collectives gather, scatter or average, by the kind of the collective."""
SUMS = 8
"""Bytes of the number of targets and the sum of their losses, in float32."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of these rows."""
    group = parser.add_argument_group("communication")
    config = CONFIGS / "language" / "enwik8_base.yaml"
    group.add_argument("--config", type=Path, default=config, help="config of a language model")
    group.add_argument("--gpus", type=int, default=64, help="processes, one a GPU; 8 nodes of 8 by default")


def check(options: argparse.Namespace) -> None:
    """Raise a ValueError for options that cannot be counted."""
    if not options.config.is_file():
        raise ValueError(f"--config {options.config} is not a file; give the config of a language model")
    if options.gpus < 2:
        raise ValueError(f"--gpus is {options.gpus}; it must be at least 2, because one sends nothing")


def count(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the rows of the strategies."""
    model = LanguageModel.from_config(options.config)
    sizes = {"parameters": sum(p.numel() for p in model.parameters()), "gpus": options.gpus}
    traffic = {"ddp": count_ddp(model)}
    for name, gathers in OPTIMIZERS.items():
        traffic[f"fsdp2_{name}"] = count_fsdp2(model, options.gpus) + Counter(gathers(model, options.gpus))
    sent = {name: count_sent(each, options.gpus) for name, each in traffic.items()}
    rows = {
        f"communication_{name}": {
            "value": sent[name],
            "unit": "bytes that a GPU sends in an optimizer step of one batch",
            "of_ddp": round(sent[name] / sent["ddp"], 3),
            **each,
            **sizes,
            "config": options.config.name,
        }
        for name, each in traffic.items()
    }
    say(", ".join(f"{name}: {value / 1e6:.1f} MB" for name, value in sent.items()))
    return rows


def count_sent(traffic: Traffic, processes: int) -> int:
    """Return the bytes that each process sends, by rings over all."""
    passes = sum(size * (2 if kind == "all_reduce" else 1) for kind, size in traffic.items())
    return math.ceil(passes * (processes - 1) / processes)


def count_ddp(model: nn.Module) -> Counter[str]:
    """Return the traffic of a step under DDP."""
    gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    # Buffers are those of the first process at every forward.
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    return Counter({"all_reduce": gradients + SUMS} | ({"broadcast": buffers} if buffers else {}))


def count_fsdp2(model: LanguageModel, processes: int) -> Counter[str]:
    """Return the traffic of a step under FSDP2, without that of the optimizer."""
    found: Counter[str] = Counter({"all_reduce": SUMS})
    for unit, gathers in list_units(model.network):
        # The norm of the gradients: that of each shard is a number.
        found["all_reduce"] += sum(p.element_size() for p in unit if p.requires_grad)
        found["all_gather"] += gathers * count_padded(unit, processes)
        found["reduce_scatter"] += count_padded([p for p in unit if p.requires_grad], processes)
    return found


def list_units(network: nn.Module) -> Iterator[tuple[list[nn.Parameter], int]]:
    """Yield the parameters that `shard` gathers at once, with the number of times in a step."""
    seen: set[nn.Parameter] = set()
    for sublayer in network.modules():
        if isinstance(sublayer, Sublayer):
            own = [p for p in sublayer.parameters() if p not in seen]
            seen.update(own)
            yield own, 2
    yield [p for p in network.parameters() if p not in seen], 1


def count_padded(tensors: Sequence[Tensor], processes: int) -> int:
    """Return the bytes of tensors whose rows are padded to a multiple of the processes."""
    rows = [math.ceil(len(each) / processes) * processes for each in tensors]
    return sum(r * each[0].numel() * each.element_size() for r, each in zip(rows, tensors, strict=True))


def count_matrices(model: nn.Module, processes: int) -> Traffic:
    """Return the traffic of an optimizer that gathers each matrix once."""
    return {"all_gather": count_padded(_list_matrices(model), processes)}


def count_matrices_and_neurons(model: nn.Module, processes: int) -> Traffic:
    """Return the traffic of an optimizer that gathers each matrix, and a number for each of its rows."""
    matrices = _list_matrices(model)
    return {"all_gather": count_padded([*matrices, *(p[:, :1] for p in matrices)], processes)}


def _list_matrices(model: nn.Module) -> list[nn.Parameter]:
    groups = parameter_groups(model)
    return [p for group in groups if group["role"] == "matrix" for _, p in group["params"]]


OPTIMIZERS: dict[str, Callable[[nn.Module, int], Traffic]] = {
    "adamw": lambda *_: {},
    "muon": count_matrices,
    "normuon": count_matrices_and_neurons,
    "soap": count_matrices,
}
"""Traffic of optimizers under FSDP2."""


class CollectiveCounter(TorchDispatchMode):
    """Counter of the bytes of the full tensors that collectives gather, scatter or average while it is entered."""

    KINDS: ClassVar[dict[str, str]] = {
        "all_reduce": "all_reduce",
        "allreduce": "all_reduce",
        "allgather": "all_gather",
        "all_gather": "all_gather",
        "reduce_scatter": "reduce_scatter",
        "broadcast": "broadcast",
    }
    """Kinds by the first letters of an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, Tensor) and kind.__name__ == "DTensor" for kind in types):
            # Shards become plain tensors first, and then the collectives that they need.
            return NotImplemented
        made = func(*args, **(kwargs or {}))
        name = func.name().partition("::")[2].lstrip("_")
        if func.namespace in ("c10d", "_c10d_functional") and not name.startswith(
            ("wait_tensor", "wrap_tensor", "barrier")
        ):
            kind = next((kind for start, kind in self.KINDS.items() if name.startswith(start)), name)
            self.calls[kind] += 1
            # The largest side is the full one: the output of a gathering, the input of a scattering.
            self.traffic[kind] += max(_count_bytes(each) for each in (*args, made))
        return made


def _count_bytes(value: Any) -> int:
    """Return the bytes of tensors, however deep they are in lists."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_count_bytes, value)) if isinstance(value, list | tuple) else 0
