"""Cost of every variant, next to the plain decoder. Usage: python benchmarks/variants.py [--only NAME ...].

A row is an overlay of `configs/variants`, laid over a plain decoder: dim 256, 4 layers, 4 heads and a row of 512 tokens
in float32 on a CPU, by one thread; dim 512, 8 heads and 16 rows of 1024 in bfloat16 on a GPU. The plain decoder runs
before and after each step of a variant. Nothing is compiled but what the package compiles itself.

    value     time of a forward and a backward, in multiples of the plain decoder's: the median of the ratios; on a CPU
              its time, so that other programs matter little
    memory    parameters and the most that the step allocates above them, gradients included, in its multiples; on a CPU
              from the allocations that torch's profiler records
    seconds   of a step

`share_within_1.25x` is the fraction of the variants whose value is at most 1.25.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from common import measure_memory, report, say

from lightning_xt import Inputs
from lightning_xt.commands.catalogue.merging import merge
from lightning_xt.core.inputs import ReadsInput
from lightning_xt.training.language_model import LanguageModel

OVERLAYS = Path(__file__).parents[1] / "configs" / "variants"
NAMES = [file.stem for file in sorted(OVERLAYS.glob("*.yaml"))]
LIMIT = 1.25
SIZES = {"cpu": {"dim": 256, "heads": 4, "seq_len": 512, "batch_size": 1}}
SIZES["cuda"] = {"dim": 512, "heads": 8, "seq_len": 1024, "batch_size": 16}
CONDITION = 8


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    plain = Step({}, options)
    rows: dict[str, dict[str, Any]] = {}
    for name in options.only or NAMES:
        rows[name] = measure(name, plain, options)
        say(f"{name}: {rows[name]}")
    values = [row["value"] for row in rows.values()]
    within = sum(value <= LIMIT for value in values)
    seconds = statistics.median(row["plain_seconds"] for row in rows.values())
    summary = {"share_within_1.25x": {"value": round(within / len(values), 4), "within": within, "of": len(values)}}
    sizes = {name: getattr(options, name) for name in ("dim", "depth", "heads", "seq_len", "batch_size")}
    summary["plain"] = {"value": round(seconds, 4), "megabytes": round(plain.memory / 1e6, 1), **sizes}
    report(summary | rows, options.device)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=NAMES, metavar="NAME", help="these overlays (default: all)")
    parser.add_argument("--device", choices=list(SIZES), default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="steps of each variant")
    parser.add_argument("--depth", type=int, default=4, help="layers")
    for name in SIZES["cpu"]:
        parser.add_argument(
            f"--{name}", type=int, help=f"{SIZES['cpu'][name]} on a CPU, {SIZES['cuda'][name]} on a GPU"
        )
    options = parser.parse_args()
    for name, value in SIZES[options.device].items():
        setattr(options, name, getattr(options, name) or value)
    return options


def measure(name: str, plain: "Step", options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of a variant."""
    overlay = yaml.safe_load((OVERLAYS / f"{name}.yaml").read_text(encoding="utf-8"))
    step = Step(overlay["model"]["init_args"], options)
    # The first step may compile.
    step.run()
    memory = step.memory / plain.memory
    around, own = [plain.time()], []
    for _ in range(options.repeats):
        own.append(step.time())
        around.append(plain.time())
    ratios = [seconds / statistics.mean(around[at : at + 2]) for at, seconds in enumerate(own)]
    return {
        "value": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "memory": round(memory, 3),
        "seconds": round(statistics.median(own), 4),
        "plain_seconds": round(statistics.median(around), 4),
        "repeats": len(ratios),
    }


class Step:
    """Forward and backward of a model on one batch.

    Args:
        overlay: options of the language model besides the sizes.
        options: those of the benchmark.
    """

    def __init__(self, overlay: Mapping[str, Any], options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        sizes = {"dim": options.dim, "depth": options.depth, "attention": {"heads": options.heads}}
        self.device = torch.device(options.device)
        self.model = LanguageModel.from_config(merge({"decoder": sizes}, overlay)).to(self.device).train()
        self.tokens = torch.randint(0, 256, (options.batch_size, options.seq_len + 1), device=self.device)
        self.inputs = make_inputs(self.model, self.tokens)

    def run(self) -> None:
        self.model.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.model.loss(self.tokens, inputs=self.inputs)
        loss.backward()

    def time(self) -> float:
        """Return the seconds of a step."""
        if self.device.type == "cpu":
            start = time.process_time()
            self.run()
            return time.process_time() - start
        torch.cuda.synchronize()
        start = time.perf_counter()
        self.run()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    @cached_property
    def memory(self) -> int:
        """Bytes of the parameters and of the most that a step allocates above them."""
        self.model.zero_grad(set_to_none=True)
        parameters = sum(each.numel() * each.element_size() for each in self.model.parameters())
        return parameters + measure_memory(self.run, self.device)[0]


def make_inputs(model: LanguageModel, tokens: torch.Tensor) -> Inputs | None:
    """Return the inputs that the parts of a model need besides the tokens; None if they need none."""
    needed = {part.needed_input for part in model.modules() if isinstance(part, ReadsInput)} - {None}
    made: dict[str, torch.Tensor] = {}
    if "condition" in needed:
        width = next(each for each in find_values(dict(model.hparams), "condition_dim") if each)
        made["condition"] = torch.randn(len(tokens), int(width), device=tokens.device)
    if "types" in needed:
        made["types"] = torch.zeros_like(tokens[:, 1:])
    if missing := needed - made.keys():
        sys.exit(f"there is no input {', '.join(map(str, missing))} to give to the model")
    return Inputs(**made) if made else None


def find_values(options: Any, name: str) -> Iterator[Any]:
    """Yield the values of an option, however deep it stands."""
    if isinstance(options, Mapping):
        yield from (value for key, value in options.items() if key == name)
    inner = options.values() if isinstance(options, Mapping) else options if isinstance(options, list) else ()
    for each in inner:
        yield from find_values(each, name)


if __name__ == "__main__":
    main()
