"""How much of a machine's arithmetic a model uses: its FLOPs, and those the machine could do."""

import copy
import resource
import sys
import time
import warnings

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch import nn

from lightning_xt.models.decoder import Decoder
from lightning_xt.models.outline import outline

BACKWARD = 2
"""FLOPs of a backward pass in forward passes: gradients of inputs and of weights."""


def training_flops(decoder: Decoder, seq_len: int) -> float | None:
    """FLOPs of a training step per token: all pairs of tokens count, as in the literature; None if they defy counting.

    Args:
        decoder: the network, wherever it is; neither touched nor run.
        seq_len: tokens in a row.
    """
    try:
        with torch.device("meta"):
            return (1 + BACKWARD) * outline(_skeleton(decoder), seq_len).flops / seq_len
    except (NotImplementedError, RuntimeError, ValueError):
        # A part that needs values, or positions that end before the row does.
        return None


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOPs a second of dense matrix products: a GPU's from a table (None if it is not there), a CPU's measured."""
    if device.type == "cuda":
        with warnings.catch_warnings():
            # Of a GPU that is not in the table.
            warnings.simplefilter("ignore")
            known = get_available_flops(device, dtype)
        return None if known is None else float(known)
    return _probed(dtype) if device.type == "cpu" else None


def peak_memory(device: torch.device) -> float:
    """Most bytes held so far: by tensors on a GPU, by the process on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _skeleton(decoder: Decoder) -> Decoder:
    """A copy without numbers."""
    memo: dict[int, object] = {}
    for parameter in decoder.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in decoder.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(decoder, memo)


def _probed(dtype: torch.dtype, size: int = 1024, repeats: int = 5) -> float:
    """The best of a few products of two matrices."""
    left, right = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    # The first one prepares.
    return 2.0 * size**3 / min(seconds[1:])
