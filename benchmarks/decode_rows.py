"""Decode steps of several rows: their time, next to that of the matrix products alone and of one large product."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import say
from torch import Tensor, nn

from lightning_xt import Decoder
from lightning_xt.generation.models.packed_products import pack_matrix
from lightning_xt.generation.models.quantized_weights import Weights
from lightning_xt.generation.protocol import Autoregressive

FORMATS: tuple[Weights, ...] = ("float32", "bfloat16", "int8", "int4")
ROWS = (1, 2, 4, 8, 16, 32)
PEAK = 2048
"""Rows of the square matrices whose product is the machine's peak."""


def compare_rows(
    decoder: Decoder, models: dict[Weights, Autoregressive], prompt: int, new: int, repeats: int
) -> dict[str, Any]:
    """Return milliseconds of a step for each format and number of rows; all take turns in each repeat."""
    legs: dict[str, Callable[[], float]] = {}
    for weights, model in models.items():
        for rows in ROWS:
            legs[f"{weights} {rows}"] = lambda model=model, rows=rows: measure_step(model, rows, prompt, new)
            legs[f"{weights} {rows} products"] = make_products(decoder, weights, rows)
    peaks = {f"{weights} peak": make_peak(weights) for weights in FORMATS[:2]}
    taken: dict[str, list[float]] = {name: [] for name in (*legs, *peaks)}
    for repeat in range(repeats):
        for name, leg in (legs | peaks).items():
            taken[name].append(leg())
        say(f"repeat {repeat + 1}/{repeats}")
    medians = {name: round(statistics.median(values), 3) for name, values in taken.items()}
    ratios = [16 * one / many for one, many in zip(taken["float32 1"], taken["float32 16"], strict=True)]
    return {
        "value": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "ms": {name: medians[name] for name in legs},
        "gflops": {name: medians[name] for name in peaks},
        "repeats": repeats,
    }


@torch.inference_mode()
def measure_step(model: Autoregressive, rows: int, prompt: int, new: int) -> float:
    """Return the median milliseconds of a greedy step."""
    cache = model.new_cache(rows, prompt + new)
    token = model(torch.randint(0, model.vocab_size, (rows, prompt)), cache=cache, last_only=True)[:, -1].argmax(-1)
    taken = []
    for _ in range(new):
        start = time.perf_counter()
        token = model(token[:, None], cache=cache, last_only=True)[:, -1].argmax(-1)
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken)


@torch.inference_mode()
def make_products(decoder: Decoder, weights: Weights, rows: int) -> Callable[[], float]:
    """Make a leg that returns the median milliseconds of the products with every matrix, packed as a step has them."""
    dtype = torch.float32 if weights == "float32" else torch.bfloat16
    matrices = [module.weight.detach().to(dtype) for module in decoder.modules() if isinstance(module, nn.Linear)]
    packed = [pack_matrix(matrix) for matrix in matrices]
    pairs = [
        (torch.randn(rows, matrix.shape[1]).to(dtype), each) for matrix, each in zip(matrices, packed, strict=True)
    ]
    return lambda: measure_products(pairs)


@torch.inference_mode()
def measure_products(pairs: list[tuple[Tensor, Tensor | None]]) -> float:
    taken = []
    for _ in range(10):
        start = time.perf_counter()
        for x, packed in pairs:
            torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken)


def make_peak(weights: Weights) -> Callable[[], float]:
    """Make a leg that returns the GFLOP/s of one large product."""
    square = torch.randn(PEAK, PEAK).to(torch.float32 if weights == "float32" else torch.bfloat16)

    def measure() -> float:
        square @ square
        start = time.perf_counter()
        square @ square
        return 2e-9 * PEAK**3 / (time.perf_counter() - start)

    return measure
