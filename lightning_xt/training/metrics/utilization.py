"""Utilization: FLOPs of a model, and the most FLOPs that a machine can do."""

import copy
import re
import resource
import sys
import time
from typing import TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from lightning_xt.models.decoder import Decoder
from lightning_xt.models.outline import outline

Network = TypeVar("Network", bound=nn.Module)

BACKWARD = 2
"""FLOPs of a backward pass, in forward passes: gradients of inputs and of weights."""

TERAFLOPS = (
    # Name, then bfloat16, float16 and float32 (without TF32), dense, from the data sheets.
    (r"B200", 2250, 2250, None),
    (r"H200|GH200 480GB|H100 80GB HBM3", 989.4, 989.4, 66.9),
    (r"H100 NVL", 835, 835, None),
    (r"H100 PCIe", 756, 756, 51.2),
    (r"A100-(SXM4|PCIE)-[48]0GB|A100 80GB PCIe", 312, 312, 19.5),
    (r"A10", 125, 125, 31.2),
    (r"L40S", 362, 362, 91.6),
    (r"L40", 181, 181, 90.5),
    (r"L4", 121, 121, 30.3),
    (r"V100-SXM2-\d+GB", None, 125, 15.7),
    (r"V100-PCIE-\d+GB", None, 112, 14),
    (r"GeForce RTX 4090", 165.2, 165.2, 82.6),
)
"""Peak of each GPU by its full name, because a part of a GPU, or a similar one, can do less. Lightning's table lacks
some of them, and has others as pairs of cards or without tensor cores."""


def count_training_flops(network: nn.Module, seq_len: int) -> float | None:
    """Count the FLOPs of a training step per token, all pairs of tokens included as in the literature.

    The network, on any device, is neither changed nor run. An encoder-decoder gives None, because its FLOPs depend on
    two lengths that change with every batch.
    """
    if not isinstance(network, Decoder):
        return None
    try:
        with torch.device("meta"):
            return (1 + BACKWARD) * outline(_copy_to_meta(network), seq_len).flops / seq_len
    except (NotImplementedError, RuntimeError, ValueError):
        # A part needs values, or has fewer positions than the row.
        return None


def count_module_flops(module: nn.Module, seq_len: int) -> float | None:
    """Count the FLOPs of a training step of a model per token; None if its objective has parameters.

    See `count_training_flops`; a user's module may have no network.
    """
    network = getattr(module, "network", None)
    if not isinstance(network, nn.Module):
        return None
    known = {id(each) for each in network.parameters()}
    if any(id(each) not in known for each in module.parameters()):
        return None
    return count_training_flops(network, seq_len)


def find_peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Return the peak FLOPs a second of dense matrix products: a GPU's from a table or None, a CPU's measured."""
    if device.type == "cuda":
        return _look_up_peak(torch.cuda.get_device_name(device), dtype)
    return _measure_peak(dtype) if device.type == "cpu" else None


def measure_peak_memory(device: torch.device) -> float:
    """Return the most bytes in use so far: by tensors on a GPU, by the process on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _copy_to_meta(network: Network) -> Network:
    """Copy a network to the meta device."""
    memo: dict[int, object] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(network, memo)


def _look_up_peak(name: str, dtype: torch.dtype) -> float | None:
    """Look up a GPU in the table, and report if it is missing."""
    single = None if torch.backends.cuda.matmul.fp32_precision == "tf32" else torch.float32
    for names, *figures in TERAFLOPS:
        if re.fullmatch(rf"((NVIDIA|Tesla) )?({names})", name):
            peak = dict(zip((torch.bfloat16, torch.float16, single), figures, strict=True)).get(dtype)
            if peak is not None:
                return peak * 1e12
    rank_zero_info(f"mfu is omitted: the FLOPs a second of {name} in {dtype} are not known")
    return None


def _measure_peak(dtype: torch.dtype, size: int = 1024, repeats: int = 5) -> float:
    """Measure the fastest of a few products of two matrices."""
    left, right = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    # The first product warms up.
    return 2.0 * size**3 / min(seconds[1:])
