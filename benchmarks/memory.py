"""Memory of a training step and of a cache. Usage: python benchmarks/memory.py [--rows NAME ...].

    checkpoint_layers   forward and backward of a plain decoder whose layers are computed again in the backward pass:
                        most bytes that the step allocates besides the parameters, gradients included, as a fraction of
                        those of the same decoder without; `kept` is that fraction of the bytes between forward and
                        backward
    checkpoint_half     the same with half of the layers
    window_cache        bytes of the cache after a prompt and some steps, with a window of an eighth of the row, as a
                        fraction of those without a window

One row of tokens in float32. On a CPU bytes are those of the allocations that torch's profiler records.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import measure_memory, report, say
from torch import Tensor

from lightning_xt import Attention, Decoder
from lightning_xt.core.trace import Trace

SLACK = 64
"""Tokens that a window of a cache keeps beyond its width."""


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    rows = {}
    for name in options.rows:
        rows[name] = ROWS[name](options)
        say(f"{name}: {rows[name]}")
    report(rows, options.device)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS), help="these rows (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    for name, value in {"dim": 512, "depth": 12, "heads": 8, "seq_len": 4096}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def build(options: argparse.Namespace, window: int | None = None, layers: bool | int = False) -> Decoder:
    """Build a plain decoder of bytes."""
    torch.manual_seed(0)
    attention = partial(Attention, heads=options.heads, window=window)
    model = Decoder(256, dim=options.dim, depth=options.depth, attention=attention, checkpoint_layers=layers)
    return model.to(options.device)


def compare_layers(options: argparse.Namespace, layers: bool | int) -> dict[str, Any]:
    """Return the row of a step with some layers computed again."""
    tokens = torch.randint(0, 256, (1, options.seq_len), device=options.device)
    device, found = torch.device(options.device), []
    for checkpointed in (False, layers):
        model = build(options, layers=checkpointed)

        def run_forward(model: Decoder = model) -> Tensor:
            logits, _ = model(tokens, trace=Trace())
            return torch.nn.functional.cross_entropy(logits[0, :-1].float(), tokens[0, 1:])

        _, kept = measure_memory(run_forward, device)
        start = time.perf_counter()
        peak, _ = measure_memory(lambda run=run_forward: run().backward(), device)
        gradients = sum(each.numel() * each.element_size() for each in model.parameters())
        found.append((peak, kept, time.perf_counter() - start, gradients))
    (peak, kept, seconds, gradients), (own_peak, own_kept, own_seconds, _) = found
    return {
        "value": round(own_peak / peak, 3),
        "kept": round(own_kept / kept, 3),
        "megabytes": {"with": round(own_peak / 1e6, 1), "without": round(peak / 1e6, 1)},
        "kept_megabytes": {"with": round(own_kept / 1e6, 1), "without": round(kept / 1e6, 1)},
        "gradients_megabytes": round(gradients / 1e6, 1),
        "time": round(own_seconds / seconds, 2),
    }


@torch.no_grad()
def compare_windows(options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of a cache with a window."""
    window, prompt = options.seq_len // 8, options.seq_len * 3 // 4
    tokens = torch.randint(0, 256, (1, options.seq_len), device=options.device)
    found, device = [], torch.device(options.device)
    for width in (None, window):
        model = build(options, window=width).eval()

        def fill(model: Decoder = model) -> object:
            cache = model.new_cache(1, options.seq_len, slack=SLACK)
            model(tokens[:, :prompt], cache=cache, last_only=True)
            for at in range(prompt, options.seq_len):
                model(tokens[:, at : at + 1], cache=cache)
            return cache

        found.append(measure_memory(fill, device)[1])
    whole, own = found
    token = 2 * options.depth * options.dim * 4
    return {
        "value": round(own / whole, 4),
        "window": window,
        "slack": SLACK,
        "tokens": {"with": round(own / token, 1), "without": round(whole / token, 1)},
        "megabytes": {"with": round(own / 1e6, 2), "without": round(whole / 1e6, 2)},
    }


ROWS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "checkpoint_layers": lambda options: compare_layers(options, True),
    "checkpoint_half": lambda options: compare_layers(options, options.depth // 2),
    "window_cache": compare_windows,
}

if __name__ == "__main__":
    main()
