"""Cost of a token by the length of its row, for full, windowed and recurrent attention; rows of scaling.py.

    length_full              every token sees all before it
    length_window            it sees the last --window
    length_gated_delta_net   it reads a memory of fixed size (GatedDeltaNet)

A plain decoder of bytes in float32 on one CPU thread, nothing compiled but what the package compiles itself; seconds
are CPU time, so that other programs matter little, and medians of the repeats; all models and lengths take turns.
`us` is a forward and a backward over as many rows as hold --tokens, a token; `decode_us` is a step that decodes one
token after that many, with a cache. `value` and `decode_slope` are slopes of the logarithm of that time against the
logarithm of the length, over all lengths; `long_slope` and `decode_long_slope` over the longer half of them. A time
that grows with the length has slope 1, a constant one 0.
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from common import say
from torch import Tensor
from torch.nn import functional as F

from lightning_xt import Attention, Decoder, GatedDeltaNet

VOCABULARY = 256
KINDS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "full": lambda options: partial(Attention, heads=options.heads),
    "window": lambda options: partial(Attention, heads=options.heads, window=options.window),
    "gated_delta_net": lambda options: partial(GatedDeltaNet, heads=options.heads),
}
"""Factories of each layer's attention."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of these rows, and the sizes that other rows share."""
    group = parser.add_argument_group("length")
    lengths = [128 << doublings for doublings in range(7)]
    group.add_argument("--lengths", nargs="+", type=int, default=lengths, help="tokens of a row")
    group.add_argument("--window", type=int, default=256, help="tokens that a windowed layer sees")
    group.add_argument("--tokens", type=int, default=8192, help="of each forward and backward, at least one row")
    group.add_argument("--decode_steps", type=int, default=32, help="of each measurement")
    sizes = parser.add_argument_group("length and processes")
    for name, value in {"dim": 128, "depth": 4, "heads": 4}.items():
        sizes.add_argument(f"--{name}", type=int, default=value)


def check(options: argparse.Namespace) -> None:
    """Raise a ValueError for options that cannot be measured."""
    if len(set(options.lengths)) < 2:
        raise ValueError(f"--lengths has only {options.lengths[0]}, but a slope needs at least two; add a length")
    for name in ("window", "tokens", "decode_steps"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} is {getattr(options, name)}; it must be at least 1")
    if (least := min(options.lengths)) < 1:
        raise ValueError(f"--lengths has {least}; a row has at least 1 token")


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the row of each kind of attention."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    lengths = sorted(set(options.lengths))
    legs: dict[tuple[str, str, int], Callable[[], float]] = {}
    for kind, length in itertools.product(KINDS, lengths):
        model = build(kind, options)
        legs["us", kind, length] = partial(time_training, model, length, options.tokens)
        legs["decode_us", kind, length] = TimedDecoding(model, length, options).time
    microseconds: dict[tuple[str, str, int], list[float]] = {leg: [] for leg in legs}
    # The first turn may compile.
    for repeat in range(options.repeats + 1):
        for (unit, kind, length), leg in legs.items():
            found = 1e6 * leg()
            if repeat:
                microseconds[unit, kind, length].append(found)
                say(f"repeat {repeat}/{options.repeats}  {kind}, {length} tokens: {found:.1f} {unit}")
    torch.set_num_threads(threads)
    medians = {leg: statistics.median(found) for leg, found in microseconds.items()}
    return {f"length_{kind}": describe(kind, lengths, medians, options) for kind in KINDS}


def describe(
    kind: str, lengths: list[int], medians: dict[tuple[str, str, int], float], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the row of a kind of attention."""
    row: dict[str, Any] = {"unit": "slope of log time of a token against log length"}
    for unit, name, long_name in (("us", "value", "long_slope"), ("decode_us", "decode_slope", "decode_long_slope")):
        times = [medians[unit, kind, length] for length in lengths]
        longer = min(len(lengths) // 2, len(lengths) - 2)
        row[name] = round(find_slope(lengths, times), 3)
        row[long_name] = round(find_slope(lengths[longer:], times[longer:]), 3)
        row[unit] = {str(length): round(found, 2) for length, found in zip(lengths, times, strict=True)}
    sizes = {name: getattr(options, name) for name in ("dim", "depth", "heads", "tokens", "decode_steps")}
    return {**row, **({"window": options.window} if kind == "window" else {}), **sizes, "repeats": options.repeats}


def find_slope(lengths: Sequence[float], times: Sequence[float]) -> float:
    """Return the slope of the line that is nearest to the logarithms."""
    x, y = ([math.log(each) for each in values] for values in (lengths, times))
    return statistics.linear_regression(x, y).slope


def build(kind: str, options: argparse.Namespace) -> Decoder:
    """Build a decoder of bytes."""
    torch.manual_seed(0)
    return Decoder(VOCABULARY, dim=options.dim, depth=options.depth, attention=KINDS[kind](options))


def time_training(model: Decoder, length: int, tokens: int) -> float:
    """Return the CPU seconds of a token in a forward and a backward."""
    rows = max(1, tokens // length)
    batch = torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))
    model.train().zero_grad(set_to_none=True)
    start = time.process_time()
    logits: Tensor = model(batch)
    F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()).backward()
    return (time.process_time() - start) / (rows * length)


class TimedDecoding:
    """Decoding of single tokens after a prompt; each measurement continues after the one before.

    Args:
        model: decoder.
        length: tokens of the prompt.
        options: those of the benchmark.
    """

    def __init__(self, model: Decoder, length: int, options: argparse.Namespace) -> None:
        self.model, self.steps = model, options.decode_steps
        self.prompt = torch.randint(0, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(0))
        self.cache = model.new_cache(1, length + self.steps * (options.repeats + 1))

    @torch.no_grad()
    def time(self) -> float:
        """Return the CPU seconds of a step."""
        self.model.eval()
        if self.prompt.shape[1] > 1:
            self.model(self.prompt[:, :-1], cache=self.cache, last_only=True)
            self.prompt = self.prompt[:, -1:]
        start = time.process_time()
        for _ in range(self.steps):
            self.model(self.prompt, cache=self.cache)
        return (time.process_time() - start) / self.steps
