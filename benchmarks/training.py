"""Training speed, all legs in turn. Usage: python benchmarks/training.py [--device cpu|cuda] [--rows NAME ...].

    trainer          ours, by `lightning-xt fit`: its Trainer, callbacks, loggers and data; bf16, compiled, fused AdamW
    bare             the same model, settings and batches in a loop of ten lines
    barebones        the same by Lightning's `Trainer(barebones=True)`, which has no callbacks, loggers and checkpoints
    xt_shipped       the model of x-transformers' train_enwik8, trained as there: float32, eager
    xt_script        the same to the letter: with the two options that its script sets today, in four batches a step
    xt_flash_bf16    xt_shipped with flash attention and bf16
    xt_compiled      the same with torch.compile too
    reference_gpt    reference_gpt.py: bf16, compiled, fused AdamW
    gemm             only matrix products

A step is forward, backward, clipping and optimizer. The Trainer runs a slice of steps, then each other leg one as long,
and so on; steps that compile are not counted. On the CPU the four slices of a repeat are 20 steps, in which values are
logged once. Needs the extra `bench`.

The legs of x-transformers step with Adam at 1e-4, not fused, and clip the norm of the gradients to 0.5, as their script
does; trainer, bare and reference_gpt step with fused AdamW and clip to 1.0. Parts of their script are omitted,
which favours theirs in speed: `attn_orthog_projected_values` and `attn_orthog_projected_values_per_head`, which double
the output projection of attention, and cutting a step into four (xt_script has both); windows read one by one, and the
loss of each step printed and logged.
"""

import argparse
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from barebones import BarebonesTrainer
from common import report, row, say
from lightning.pytorch import Callback, LightningModule, Trainer
from reference_gpt import ReferenceGPT, next_token_loss, reference_optimizer
from torch import Tensor, nn

from lightning_xt import Decoder, LanguageModel
from lightning_xt.cli import main as lightning_xt
from lightning_xt.data.loading.loader import Loader
from lightning_xt.data.text.windows import TrainingWindows
from lightning_xt.models.outline import outline

H100_PEAK = 989e12
"""bf16 FLOP/s of an H100 SXM, dense."""
CORPUS = 1 << 20
GEMM = {"cpu": (1024, 8), "cuda": (8192, 16)}
"""Rows of the matrices, and products of one measurement."""
ALONE = 40
"""Steps at the end that the Trainer takes without a pause, in which waiting for data is measured."""
Steps = Callable[[int], object]
"""Function that trains a number of steps."""


@dataclass(frozen=True)
class Size:
    """Model and its batches."""

    dim: int
    depth: int
    heads: int
    seq_len: int
    batch_size: int

    @property
    def tokens(self) -> int:
        """Return the tokens predicted in a step."""
        return self.batch_size * self.seq_len


SIZES = {"cpu": Size(256, 4, 4, 256, 16), "cuda": Size(512, 12, 8, 1024, 64)}
TINY = Size(16, 1, 1, 16, 1)


@dataclass
class Race:
    """Legs in turn.

    Args:
        legs: all except the Trainer's.
        device: where they train.
        rounds: slices of each leg.
        steps: of a slice.
        alone: steps of the Trainer at the end.
        warmup: steps of each leg before anything is measured.
    """

    legs: dict[str, Steps]
    device: torch.device
    rounds: int
    steps: int
    alone: int = ALONE
    warmup: int = 3
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_seconds: dict[str, list[float]] = field(default_factory=dict)
    data_wait: float = 0.0

    def warm_up(self) -> None:
        """Compile and allocate."""
        for name, leg in self.legs.items():
            start = time.perf_counter()
            leg(self.warmup)
            say(f"{name}: ready after {time.perf_counter() - start:.1f} s")

    def run(self) -> None:
        """Run one slice of each leg."""
        for name, leg in self.legs.items():
            start = self.now(), time.process_time()
            leg(self.steps)
            self.note(name, *start)

    def note(self, name: str, start: float, cpu_start: float) -> None:
        """Record the time of a slice that ends now."""
        self.seconds.setdefault(name, []).append((self.now() - start) / self.steps)
        self.cpu_seconds.setdefault(name, []).append((time.process_time() - cpu_start) / self.steps)

    def now(self) -> float:
        """Return the time after the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def totals(self, name: str, repeats: int) -> list[float]:
        """Return the mean seconds of a step in each repeat, which holds several slices."""
        each = self.seconds[name]
        size = len(each) // repeats
        return [statistics.mean(each[first : first + size]) for first in range(0, len(each), size)]


class TrainerLeg(Callback):
    """Callback that times slices of the Trainer's steps, and runs the other legs between them."""

    race: ClassVar[Race]

    def __init__(self) -> None:
        self.start = self.cpu_start = self.waited = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        race, loader = self.race, trainer.train_dataloader
        step = trainer.global_step - race.warmup
        end = race.rounds * race.steps
        if step < 0 or (step % race.steps and step != end + race.alone) or end < step < end + race.alone:
            return
        now = race.now()
        if step == end + race.alone:
            race.data_wait = (waited_seconds(loader) - self.waited) / (now - self.start)
            return
        if step:
            race.note("trainer", self.start, self.cpu_start)
        else:
            race.warm_up()
        if step < end:
            say(f"slice {step // race.steps + 1}/{race.rounds}")
            race.run()
        self.waited, self.start, self.cpu_start = waited_seconds(loader), race.now(), time.process_time()


def waited_seconds(loader: Any) -> float:
    """Return the seconds of waiting for a loader."""
    return loader.waited if isinstance(loader, Loader) else 0.0


def fit(folder: Path, size: Size, race: Race, compile: bool, callbacks: list[str]) -> None:
    """Train by the command line, in this process; the race's legs run between the Trainer's."""
    TrainerLeg.race = race
    options = [
        "fit",
        f"--name={folder.name}",
        "--data=TextFiles",
        f"--data.path={folder / 'corpus'}",
        "--data.validation=0",
        "--data.test=0",
        f"--data.seq_len={size.seq_len}",
        f"--data.batch_size={size.batch_size}",
        *(f"--model.decoder.{name}={value}" for name, value in decoder_options(size)),
        f"--model.compile={str(compile).lower()}",
        "--model.optimizer=AdamW",
        "--model.optimizer.fused=true",
        f"--trainer.accelerator={'gpu' if race.device.type == 'cuda' else 'cpu'}",
        "--trainer.devices=1",
        "--trainer.precision=bf16-mixed",
        "--trainer.gradient_clip_val=1.0",
        f"--trainer.max_steps={race.warmup + race.rounds * race.steps + race.alone}",
        f"--trainer.default_root_dir={folder / 'runs'}",
        "--sample_text.prompts=[]",
        "--validate_every=null",
        *(f"--trainer.callbacks+={name}" for name in callbacks),
    ]
    # The last line of standard output is the result's.
    with contextlib.redirect_stdout(sys.stderr):
        if lightning_xt(options):
            raise SystemExit("the command line failed")


def decoder_options(size: Size) -> list[tuple[str, int]]:
    """Return our model: the defaults, at the size of the others."""
    return [("dim", size.dim), ("depth", size.depth), ("attention.heads", size.heads)]


def batches(corpus: np.ndarray, size: Size, device: torch.device) -> Iterator[Tensor]:
    """Yield the batches of the Trainer's data forever, already on the device."""
    windows = TrainingWindows(corpus, size.seq_len)
    count = 32 if size.tokens < 1 << 16 else 8
    rows = [range(first * size.batch_size, (first + 1) * size.batch_size) for first in range(count)]
    return itertools.cycle([windows.__getitems__(each).to(device) for each in rows])


def make_loop(
    loss: Callable[[Tensor], Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    feed: Iterator[Tensor],
    *,
    bf16: bool,
    clip: float = 1.0,
    parts: int = 1,
) -> Steps:
    """Return a leg that trains in a plain loop.

    Args:
        loss: of a batch.
        model: whose gradients are clipped.
        optimizer: of its parameters.
        feed: the batches.
        bf16: whether products are computed in bfloat16.
        clip: largest norm of the gradients.
        parts: backward passes that a batch is cut into.
    """
    parameters = list(model.parameters())
    device = parameters[0].device.type

    def run(steps: int) -> None:
        for batch in itertools.islice(feed, steps):
            for part in batch.chunk(parts):
                with torch.autocast(device, torch.bfloat16, enabled=bf16):
                    value = loss(part)
                (value / parts if parts > 1 else value).backward()
            torch.nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            optimizer.zero_grad()

    return run


def ours(size: Size, device: torch.device, feed: Iterator[Tensor], compile: bool, **attention: Any) -> Steps:
    """Return the model of the command line, in a bare loop."""
    options = {"heads": size.heads, **attention}
    model = LanguageModel.from_config({"decoder": {"dim": size.dim, "depth": size.depth, "attention": options}})
    model.to(device)
    network = torch.compile(model.decoder.forward, dynamic=False) if compile else model.decoder
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    return make_loop(lambda batch: model.objective(network, batch).mean, model, optimizer, feed, bf16=True)


def x_transformers(size: Size, device: torch.device, flash: bool, **options: bool) -> nn.Module:
    """Return the model of its train_enwik8, at our size, with more options of its layers."""
    from x_transformers import AutoregressiveWrapper, TransformerWrapper
    from x_transformers import Decoder as Layers

    heads = {"heads": size.heads, "attn_dim_head": size.dim // size.heads}
    layers = Layers(dim=size.dim, depth=size.depth, **heads, rotary_pos_emb=True, attn_flash=flash, **options)
    network = TransformerWrapper(num_tokens=256, max_seq_len=size.seq_len, attn_layers=layers)
    return AutoregressiveWrapper(network).to(device)


def theirs(size: Size, device: torch.device, feed: Iterator[Tensor], kind: str, compile: bool) -> Steps:
    """Return x-transformers in a bare loop."""
    plain, script = kind in ("xt_shipped", "xt_script"), kind == "xt_script"
    projections = ("attn_orthog_projected_values", "attn_orthog_projected_values_per_head")
    model = x_transformers(size, device, flash=not plain, **dict.fromkeys(projections, script))
    loss = torch.compile(model) if kind == "xt_compiled" and compile else model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    # Without flash attention a GPU has no room for all pairs of tokens of a large batch; its script cuts it in four.
    parts = 4 if script or (plain and device.type == "cuda") else 1
    return make_loop(loss, model, optimizer, feed, bf16=not plain, clip=0.5, parts=parts)


def reference(size: Size, device: torch.device, feed: Iterator[Tensor], compile: bool) -> Steps:
    """Return the plain transformer in a bare loop."""
    model = reference_model(size).to(device)
    network = torch.compile(model) if compile else model
    optimizer = reference_optimizer(model, lr=1e-3)
    return make_loop(lambda batch: next_token_loss(network(batch[:, :-1]), batch), model, optimizer, feed, bf16=True)


def reference_model(size: Size) -> ReferenceGPT:
    """Return the plain transformer at our size."""
    return ReferenceGPT(256, dim=size.dim, depth=size.depth, heads=size.heads, seq_len=size.seq_len)


def gemm(device: torch.device, dtype: torch.dtype) -> Steps:
    """Return a leg of matrix products, as many for each step."""
    rows, products = GEMM[device.type]
    left, right = (torch.randn(rows, rows, device=device).to(dtype) for _ in range(2))

    def run(steps: int) -> None:
        for _ in range(steps * products):
            left @ right

    return run


def window_scaling(
    size: Size, device: torch.device, corpus: np.ndarray, repeats: int, steps: int, compile: bool
) -> dict[str, Any]:
    """Return the growth of a step's time with the length of a row, for constant tokens a step and a constant window."""
    # Each length is a graph of the same code, of which torch keeps eight; the legs before left some.
    torch.compiler.reset()
    lengths = [size.seq_len << doublings for doublings in range(6)]
    legs = {}
    for seq_len in lengths:
        longer = Size(size.dim, size.depth, size.heads, seq_len, max(1, size.tokens // seq_len))
        legs[str(seq_len)] = ours(longer, device, batches(corpus, longer, device), compile, window=size.seq_len)
    race = Race(legs, device, repeats, steps)
    race.warm_up()
    for _ in range(repeats):
        race.run()
    first, last = race.seconds[str(lengths[0])], race.seconds[str(lengths[-1])]
    steps_ms = {name: round(1000 * statistics.median(each), 2) for name, each in race.seconds.items()}
    unit = f"time of a step with rows of {lengths[-1]} over that with rows of {lengths[0]}"
    return {**ratio(last, first), "unit": unit, "step_ms": steps_ms, "window": size.seq_len}


def ratio(above: list[float], below: list[float]) -> dict[str, Any]:
    """Return the median of the paired ratios."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return {
        "value": round(statistics.median(each), 4),
        "spread": [round(min(each), 4), round(max(each), 4)],
        "repeats": len(each),
    }


def speed(race: Race, name: str, size: Size, settings: str) -> dict[str, Any]:
    """Return the speed-up of the command line's Trainer over a leg."""
    mine, other = race.seconds["trainer"], race.seconds[name]
    return {
        **row(mine, other),
        "unit": "times their tokens/s",
        "ours_tokens_per_second": round(size.tokens / statistics.median(mine)),
        "theirs_tokens_per_second": round(size.tokens / statistics.median(other)),
        "settings": settings,
    }


def overhead(race: Race, repeats: int) -> dict[str, Any]:
    """Return the milliseconds that a step of the Trainer takes beyond one of the bare loop."""
    mine, bare = race.totals("trainer", repeats), race.totals("bare", repeats)
    each = [1000 * (a - b) for a, b in zip(mine, bare, strict=True)]
    return {
        "value": round(statistics.median(each), 3),
        "unit": "ms",
        "spread": [round(min(each), 3), round(max(each), 3)],
        "repeats": repeats,
    }


def parameters(size: Size) -> dict[str, int]:
    """Return the parameters of each model."""
    counts = {"ours": our_decoder(size), "reference_gpt": reference_model(size)}
    with contextlib.suppress(ImportError):
        counts["x_transformers"] = x_transformers(size, torch.device("cpu"), flash=False)
    return {name: sum(p.numel() for p in model.parameters()) for name, model in counts.items()}


def our_decoder(size: Size) -> Decoder:
    """Return our model on the meta device, without memory."""
    with torch.device("meta"):
        options = {"dim": size.dim, "depth": size.depth, "attention": {"heads": size.heads}}
        return LanguageModel.from_config({"decoder": options}).decoder


LEGS_OF = {
    "vs_xt_shipped": ["xt_shipped"],
    "vs_xt_script": ["xt_script"],
    "vs_xt_flash_bf16": ["xt_flash_bf16"],
    "vs_xt_compiled": ["xt_compiled"],
    "trainer_vs_bare": ["bare"],
    "trainer_overhead_ms": ["bare"],
    "data_wait_share": [],
    "reference_gpt": ["reference_gpt"],
    "gemm_gflops": ["gemm_fp32", "gemm_bf16"],
    "share_of_gemm": ["gemm_bf16"],
    "mfu_h100": [],
    "window_scaling": [],
}
CUDA_ONLY = ("mfu_h100", "window_scaling")


def make_legs(
    names: list[str], size: Size, device: torch.device, corpus: np.ndarray, compile: bool
) -> dict[str, Steps]:
    """Return the legs besides the Trainer's that some rows need."""
    makers: dict[str, Callable[[Iterator[Tensor]], Steps]] = {
        "bare": lambda feed: ours(size, device, feed, compile),
        **{
            kind: lambda feed, kind=kind: theirs(size, device, feed, kind, compile)
            for kind in ("xt_shipped", "xt_script", "xt_flash_bf16", "xt_compiled")
        },
        "reference_gpt": lambda feed: reference(size, device, feed, compile),
        "gemm_fp32": lambda feed: gemm(device, torch.float32),
        "gemm_bf16": lambda feed: gemm(device, torch.bfloat16),
    }
    needed = {leg for name in names for leg in LEGS_OF[name]}
    return {name: maker(batches(corpus, size, device)) for name, maker in makers.items() if name in needed}


def summarise(names: list[str], race: Race, size: Size, repeats: int, compile: bool) -> dict[str, dict[str, Any]]:
    """Return the rows of one race."""
    settings = f"ours: lightning-xt fit, bf16-mixed, {'compiled' if compile else 'eager'}, fused AdamW, clipping 1.0"
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        if name.startswith("vs_xt") or name == "reference_gpt":
            stepped = "fused AdamW, clipping 1.0" if name == "reference_gpt" else "unfused Adam, clipping 0.5"
            rows[name] = speed(race, LEGS_OF[name][0], size, f"{settings}; theirs: {stepped}")
    if "trainer_vs_bare" in names:
        rows["trainer_vs_bare"] = ratio(race.totals("bare", repeats), race.totals("trainer", repeats))
    if "trainer_overhead_ms" in names:
        rows["trainer_overhead_ms"] = overhead(race, repeats)
    if "data_wait_share" in names:
        rows["data_wait_share"] = {
            "value": round(race.data_wait, 6),
            "unit": "fraction of the time",
            "steps": race.alone,
        }
    best = {}
    matrix, products = GEMM[race.device.type]
    for kind in ("fp32", "bf16"):
        if (times := race.seconds.get(f"gemm_{kind}")) is not None:
            best[kind] = 2 * matrix**3 * products / min(times) / 1e9
    if "gemm_gflops" in names:
        rows["gemm_gflops"] = {
            "value": round(best["bf16"], 1),
            "unit": "GFLOP/s in bf16",
            "fp32": round(best["fp32"], 1),
        }
    # Forward, and twice as much backward.
    flops = 3 * size.batch_size * outline(our_decoder(size), size.seq_len).flops
    achieved = [flops / seconds for seconds in race.totals("trainer", repeats)]
    peaks = {
        "share_of_gemm": (1e9 * best.get("bf16", 0.0), "fraction of the FLOP/s of gemm_gflops"),
        "mfu_h100": (H100_PEAK, "fraction of bf16 peak"),
    }
    for name, (peak, unit) in peaks.items():
        if name in names:
            each = ratio(achieved, [peak] * repeats)
            rows[name] = {**each, "unit": unit, "tflops": round(statistics.median(achieved) / 1e12, 3)}
    return rows


def tiny_overhead(folder: Path, corpus: np.ndarray, device: torch.device, repeats: int) -> dict[str, Any]:
    """Return what a tiny step takes beyond one of the bare loop, in milliseconds, by our Trainer and by Lightning's.

    Noise hides less of a tiny step. In the 20 steps of a slice values are logged once.
    """
    threads = torch.get_num_threads()
    # Threads that wait for each other are most of what such a step would take.
    torch.set_num_threads(1)
    legs = {"bare": ours(TINY, device, batches(corpus, TINY, device), False), "barebones": barebones(device, corpus)}
    race = Race(legs, device, 10 * repeats, 20, 1, 20)
    fit(folder, TINY, race, False, [f"{TrainerLeg.__module__}.TrainerLeg"])
    torch.set_num_threads(threads)
    found: dict[str, Any] = {"unit": "ms", "slices": race.rounds}
    for kind, seconds in (("wall", race.seconds), ("cpu", race.cpu_seconds)):
        found[kind] = {"bare_step": round(1000 * statistics.median(seconds["bare"]), 3)}
        for name in ("trainer", "barebones"):
            beyond = [a - b for a, b in zip(seconds[name], seconds["bare"], strict=True)]
            found[kind][name] = round(1000 * statistics.median(beyond), 3)
            found[kind][f"{name}_of_bare"] = ratio(beyond, seconds["bare"])["value"]
    return found


def barebones(device: torch.device, corpus: np.ndarray) -> Steps:
    """Return the tiny model of the command line, in Lightning's Trainer without anything else."""
    options = {"dim": TINY.dim, "depth": TINY.depth, "attention": {"heads": TINY.heads}}
    model = LanguageModel.from_config({"decoder": options}).to(device)
    feed = batches(corpus, TINY, device)
    return BarebonesTrainer(lambda batch: model.objective(model.decoder, batch).mean, model, feed, device.type)


def select_rows(args: argparse.Namespace) -> list[str]:
    """Return the requested rows that can be measured here."""
    names = args.rows or [name for name in LEGS_OF if args.device == "cuda" or name not in CUDA_ONLY]
    if args.device == "cuda" and not torch.cuda.is_available():
        say("--device is cuda, and torch finds no GPU; give --device cpu")
        raise SystemExit(2)
    others = [name for name in names if name.startswith("vs_xt")]
    if others and find_spec("x_transformers") is None:
        say(f"x-transformers is not installed, and {', '.join(others)} need it; run pip install -e '.[bench]', or name "
            "other rows with --rows")  # fmt: skip
        raise SystemExit(2)
    if "mfu_h100" in names and not (args.device == "cuda" and "H100" in torch.cuda.get_device_name()):
        say("mfu_h100 is skipped: this device is not an H100")
        return [name for name in names if name != "mfu_h100"]
    return names


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(SIZES), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slices", type=int, default=4, help="slices of each leg in a repeat")
    parser.add_argument("--steps", type=int, help="of a slice; 5 on the CPU, 50 on a GPU")
    parser.add_argument("--rows", nargs="+", choices=sorted(LEGS_OF), help="only these")
    parser.add_argument("--eager", action="store_true", help="nothing is compiled")
    for name in Size.__dataclass_fields__:
        parser.add_argument(f"--{name}", type=int)
    return parser.parse_args()


def main() -> None:
    """Print the rows as JSON."""
    args = parse()
    given = {name: value for name in Size.__dataclass_fields__ if (value := getattr(args, name)) is not None}
    size = Size(**{**vars(SIZES[args.device]), **given})
    device, compile = torch.device(args.device), not args.eager
    names = select_rows(args)
    torch.manual_seed(0)
    corpus = np.random.default_rng(0).integers(0, 256, CORPUS, dtype=np.uint8)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus.tofile(folder / "corpus")
        if set(names) - {"window_scaling"}:
            steps = args.steps or (50 if args.device == "cuda" else 5)
            race = Race(make_legs(names, size, device, corpus, compile), device, args.repeats * args.slices, steps)
            fit(folder, size, race, compile, [f"{TrainerLeg.__module__}.TrainerLeg"])
            for leg, seconds in race.seconds.items():
                say(f"{leg}: {1000 * statistics.median(seconds):.2f} ms a step")
            rows = summarise(names, race, size, args.repeats, compile)
        if "trainer_overhead_ms" in names:
            rows["trainer_overhead_ms"]["tiny_model"] = tiny_overhead(folder, corpus, device, args.repeats)
        if "window_scaling" in names:
            rows["window_scaling"] = window_scaling(size, device, corpus, args.repeats, args.steps or 20, compile)
    about = {"size": vars(size), "parameters": parameters(size)}
    report({name: {**each, **about} for name, each in rows.items()}, args.device)


if __name__ == "__main__":
    main()
