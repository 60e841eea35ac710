"""Quality over training time, against plain models. Usage: python benchmarks/quality.py --preset shakespeare_cpu.

    ours             a recipe, by `lightning-xt fit`
    ours_half        the same recipe over half of the bytes that reference_gpt sees, its schedule as short as that
    reference_gpt    reference_gpt.py with the settings that nanoGPT has for this size
    x_transformers   the model of its train_enwik8 at that size, Adam at the same learning rate, no schedule

All train on the windows of the same seed in the same order, for the same time, and are measured by the mean loss over
the whole validation split in windows of the same length and, by the recipe's `data.stride`, the same overlap, side by
side; with each seed the legs take turns. Seconds are those of training, without compilation (the first steps) and
validation. A trial of each leg finds the number of steps
that the seconds hold. It fills 90 % of them, because a machine that is slower afterwards must not exceed
them. `ours` never trains more steps than its recipe's trainer.max_steps. --steps sets the number for every leg.
What follows `--` goes to our command line.

`bytes_to_reference` is the fraction of the bytes that reference_gpt sees after which ours_half (without it, ours) is as
good as reference_gpt is in the end: a rate that falls late makes a long run look slower on its way than a short one.
"""

import argparse
import contextlib
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from common import report, say
from lightning.pytorch import Callback, LightningModule, Trainer
from reference_gpt import ReferenceGPT, next_token_loss, reference_optimizer, warmup_cosine
from torch import Tensor, nn
from torch.nn import functional as F
from training import Size, x_transformers

from lightning_xt.cli import main as lightning_xt
from lightning_xt.data.files.data_folder import data_folder
from lightning_xt.data.text.resident import ResidentTokens
from lightning_xt.data.text.standard_library import StandardLibrary
from lightning_xt.data.text.text_corpus import TextCorpus
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.text.windows import EvaluationWindows, TrainingWindows

CONFIGS = Path(__file__).parents[1] / "configs" / "language"
SHAKESPEARE = Path("tinyshakespeare") / "input.txt"
FIRST = 3
"""Steps of compilation and allocation."""
TRIAL = 60
"""Steps after them whose time is measured."""
MARGIN = 0.9
"""Fraction of the seconds that the steps of a leg should fill."""
EVALUATED_AT_ONCE = 16_384  # tokens
Point = tuple[float, int, float]
"""Seconds of training, bytes seen and nats."""


@dataclass(frozen=True)
class Preset:
    """A corpus, our recipe and the plain model's settings.

    Args:
        recipe: our config file.
        corpus: its name: shakespeare or standard_library.
        size: of the plain models and of their batches; the row is everybody's context.
        device: cpu or cuda.
        seconds: of training.
        lr: the plain models' learning rate.
        dropout: of the plain models.
    """

    recipe: str
    corpus: str
    size: Size
    device: str
    seconds: float
    lr: float = 1e-3
    dropout: float = 0.0


PRESETS = {
    "shakespeare_cpu": Preset("shakespeare_cpu.yaml", "shakespeare", Size(128, 4, 4, 64, 12), "cpu", 180),
    "stdlib_cpu": Preset("quickstart.yaml", "standard_library", Size(128, 4, 4, 256, 4), "cpu", 180),
    "shakespeare_gpu": Preset("shakespeare.yaml", "shakespeare", Size(384, 6, 6, 256, 64), "cuda", 60, dropout=0.2),
    "stdlib_gpu": Preset("enwik8_small.yaml", "standard_library", Size(384, 6, 6, 1024, 32), "cuda", 120),
}


@dataclass
class Run:
    """Record of one training."""

    curve: list[Point] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0
    bytes_seen: int = 0
    parameters: int = 0
    compile_seconds: float = 0.0

    def point(self, loss: float) -> None:
        """Add an evaluation."""
        self.curve.append((round(self.seconds, 2), self.bytes_seen, round(loss, 4)))

    def bytes_to(self, loss: float) -> float | None:
        """Return the bytes until a loss was reached, interpolated between evaluations; None if it was not."""
        for (_, before, above), (_, after, below) in zip(
            [(0, 0, math.log(256)), *self.curve], self.curve, strict=False
        ):
            if below <= loss:
                return before + (after - before) * (above - loss) / (above - below) if above > loss else before
        return None


class Clock(Callback):
    """Callback that counts the seconds of the Trainer's steps and records its evaluations."""

    run: ClassVar[Run]

    def __init__(self) -> None:
        self.since: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.run.parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        self.since = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # After a validation, and what other callbacks do then.
        if self.since is None:
            self.since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        run = self.run
        run.steps, run.bytes_seen = trainer.global_step, run.bytes_seen + batch.shape[0] * (batch.shape[1] - 1)
        if run.steps == FIRST:
            run.compile_seconds, self.since = self.elapsed(), time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self.run.point(float(trainer.callback_metrics["val/loss"]))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop()

    def elapsed(self) -> float:
        """Return the seconds since the clock was started."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return 0.0 if self.since is None else time.perf_counter() - self.since

    def stop(self) -> None:
        """Add up the seconds."""
        self.run.seconds += self.elapsed()
        self.since = None


@dataclass(frozen=True)
class Contest:
    """Settings that all legs share.

    Args:
        preset: the corpus and the settings.
        folder: the folder of our runs.
        evaluations: of each run.
        options: for our command line.
    """

    preset: Preset
    folder: Path
    evaluations: int
    options: list[str]

    @property
    def device(self) -> torch.device:
        """Return the device of all legs."""
        return torch.device(self.preset.device)

    def data_options(self) -> list[str]:
        """Return the data options of the command line."""
        if self.preset.corpus == "standard_library":
            return ["--data=StandardLibrary", f"--data.seq_len={self.preset.size.seq_len}"]
        split = ["--data.validation=0.1", "--data.test=0"]
        return ["--data=TextFiles", f"--data.path={SHAKESPEARE}", f"--data.seq_len={self.preset.size.seq_len}", *split]

    def corpus(self) -> TextCorpus:
        """Return the data of the other legs."""
        sizes = {"seq_len": self.preset.size.seq_len, "batch_size": self.preset.size.batch_size}
        sizes["stride"] = self.recipe_options()["data"]["init_args"].get("stride")
        if self.preset.corpus == "standard_library":
            return StandardLibrary(**sizes)
        return TextFiles(path=str(SHAKESPEARE), validation=0.1, test=0, **sizes)

    @property
    def recipe(self) -> Path:
        """Return the path of our config."""
        return CONFIGS / self.preset.recipe

    def recipe_options(self) -> dict[str, Any]:
        """Return the content of our config."""
        options: dict[str, Any] = yaml.safe_load(self.recipe.read_text())
        return options

    def ours(self, seed: int, steps: int, evaluate: bool = True) -> Run:
        """Train our recipe by the command line, in this process."""
        Clock.run = run = Run()
        every = max(1, steps // self.evaluations) if evaluate else "null"
        options = [
            "fit",
            f"-c={self.recipe}",
            "--name=quality",
            *self.data_options(),
            f"--data.seed={seed}",
            f"--seed_everything={seed}",
            f"--trainer.max_steps={steps}",
            f"--trainer.default_root_dir={self.folder}",
            f"--trainer.accelerator={'gpu' if self.preset.device == 'cuda' else 'cpu'}",
            "--trainer.devices=1",
            f"--trainer.callbacks+={Clock.__module__}.Clock",
            "--sample_text.prompts=[]",
            f"--validate_every={every}",
            # A trial is shorter than a recipe's warm-up may be.
            *([] if evaluate else ["--model.schedule=null", "--trainer.limit_val_batches=1"]),
            *self.options,
        ]
        # The last line of standard output is the result's.
        with contextlib.redirect_stdout(sys.stderr):
            if lightning_xt(options):
                raise SystemExit("the command line failed")
        return run

    def reference(self, seed: int, steps: int, evaluate: bool = True) -> Run:
        """Train the plain transformer."""
        torch.manual_seed(seed)
        size, lr = self.preset.size, self.preset.lr
        sizes = {"dim": size.dim, "depth": size.depth, "heads": size.heads, "seq_len": size.seq_len}
        model = ReferenceGPT(256, **sizes, dropout=self.preset.dropout).to(self.device)
        optimizer = reference_optimizer(model, lr=lr, betas=(0.9, 0.99))
        warmup = min(100, steps // 10)
        network = torch.compile(model) if self.preset.device == "cuda" else model

        def rate(step: int) -> float:
            return lr * warmup_cosine(step, steps=steps, warmup_steps=warmup)

        def loss(tokens: Tensor) -> Tensor:
            return next_token_loss(network(tokens[:, :-1]), tokens)

        return self.train_in_loop(model, loss, model, optimizer, rate, 1.0, seed, steps if evaluate else -steps)

    def x_transformers(self, seed: int, steps: int, evaluate: bool = True) -> Run:
        """Train the model of x-transformers."""
        torch.manual_seed(seed)
        model = x_transformers(self.preset.size, self.device, flash=True)
        network = torch.compile(model) if self.preset.device == "cuda" else model
        optimizer = torch.optim.Adam(model.parameters(), lr=self.preset.lr)
        return self.train_in_loop(
            model, network, model.net, optimizer, lambda _: self.preset.lr, 0.5, seed, steps if evaluate else -steps
        )

    def train_in_loop(
        self,
        model: nn.Module,
        loss: Callable[[Tensor], Tensor],
        logits: Callable[[Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float],
        clip: float,
        seed: int,
        steps: int,
    ) -> Run:
        """Train in a plain loop.

        Args:
            model: the network to train.
            loss: of a batch of windows.
            logits: of tokens, for evaluation.
            optimizer: of the model's parameters.
            rate: the learning rate of a step.
            clip: largest norm of the gradients.
            seed: of the windows.
            steps: number of steps; negative to train without evaluation.
        """
        corpus = self.corpus()
        windows = TrainingWindows(corpus.splits.train, corpus.seq_len, seed)
        tokens = ResidentTokens(corpus.splits.train, self.device)
        starts = torch.from_numpy(windows.offsets(range(abs(steps) * corpus.batch_size))).to(self.device)
        every = max(1, steps // self.evaluations) if steps > 0 else 1 << 60
        run = Run(parameters=sum(parameter.numel() for parameter in model.parameters()))
        since = time.perf_counter()
        for step, first in enumerate(starts.split(corpus.batch_size)):
            batch = tokens.windows(first, corpus.seq_len)
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            with self.precision():
                value = loss(batch)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            run.steps, run.bytes_seen = step + 1, run.bytes_seen + batch.shape[0] * corpus.seq_len
            last = run.steps == abs(steps)
            if run.steps == FIRST:
                run.compile_seconds, since = self.now() - since, self.now()
            if last or run.steps % every == 0:
                run.seconds += self.now() - since
                if steps > 0:
                    run.point(self.evaluate_loss(model, logits, corpus))
                since = self.now()
        return run

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Return the autocast of nanoGPT: float32 on a CPU, bf16 on a GPU."""
        return torch.autocast(self.preset.device, torch.bfloat16, enabled=self.preset.device == "cuda")

    def now(self) -> float:
        """Return the time after the device has finished its work."""
        if self.preset.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @torch.no_grad()
    def evaluate_loss(self, model: nn.Module, logits: Callable[[Tensor], Tensor], corpus: TextCorpus) -> float:
        """Return the mean nats over the whole validation split, as our validation counts them."""
        windows = EvaluationWindows(corpus.splits.validation, corpus.seq_len, corpus.stride)
        total, count = 0.0, 0
        at_once = max(1, EVALUATED_AT_ONCE // corpus.seq_len)
        model.eval()
        for first in range(0, len(windows), at_once):
            batch = windows.__getitems__(range(first, min(first + at_once, len(windows))))
            with self.precision():
                scores = logits(batch.tokens[:, :-1].to(self.device))
            nats = F.cross_entropy(scores.float().transpose(1, 2).cpu(), batch.tokens[:, 1:], reduction="none")
            total, count = total + float(nats[batch.scored].double().sum()), count + int(batch.scored.sum())
        model.train()
        return total / count


def count_steps(contest: Contest, name: str, seconds: float) -> int:
    """Return the number of steps of a leg that the seconds hold."""
    trial = LEGS[name][1](contest, 0, FIRST + TRIAL, False)
    steps = FIRST + max(1, round(MARGIN * seconds * TRIAL / trial.seconds))
    return min(steps, contest.recipe_options()["trainer"]["max_steps"]) if name == "ours" else steps


def count_half_steps(reference_steps: int, contest: Contest) -> int:
    """Return the number of our steps that see half of the bytes of the reference."""
    size = contest.preset.size
    ours = contest.recipe_options()["data"]["init_args"]["batch_size"] * size.seq_len
    return max(1, reference_steps * size.tokens // (2 * ours))


def summarise(runs: list[Run]) -> dict[str, Any]:
    """Return a row of all seeds: the final loss, and its curve."""
    losses = [run.curve[-1][2] for run in runs]
    first = runs[0]
    return {
        "value": round(statistics.mean(losses), 4),
        "unit": "nats per byte, final model",
        "bits_per_byte": round(statistics.mean(losses) / math.log(2), 4),
        "best_by_validation": round(statistics.mean(min(loss for _, _, loss in run.curve) for run in runs), 4),
        "spread": [min(losses), max(losses)],
        "repeats": len(runs),
        "seconds": round(statistics.mean(run.seconds for run in runs), 1),
        "compile_seconds": round(statistics.mean(run.compile_seconds for run in runs), 1),
        "bytes_seen": first.bytes_seen,
        "steps": first.steps,
        "evaluations": len(first.curve),
        "parameters": first.parameters,
        "curves": [run.curve for run in runs],
    }


def bytes_to_reference(ours: list[Run], references: list[Run]) -> dict[str, Any]:
    """Return the fraction of the reference's bytes after which ours equals its final loss."""
    each = [run.bytes_to(other.curve[-1][2]) for run, other in zip(ours, references, strict=True)]
    shares = [found / other.bytes_seen for found, other in zip(each, references, strict=True) if found is not None]
    row: dict[str, Any] = {"value": None, "unit": "fraction of the reference's bytes", "repeats": len(each)}
    if len(shares) < len(each):
        return {**row, "note": f"{len(each) - len(shares)} of {len(each)} runs did not get there"}
    return {**row, "value": round(statistics.mean(shares), 4), "spread": [round(min(shares), 4), round(max(shares), 4)]}


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="shakespeare_cpu")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each leg")
    parser.add_argument("--seconds", type=float, help="of training; the preset's by default")
    parser.add_argument("--steps", type=int, help="of every leg, instead of seconds")
    parser.add_argument("--evaluations", type=int, default=20, help="of the validation split in a run")
    parser.add_argument("--legs", nargs="+", choices=list(LEGS), default=list(LEGS), help="only these")
    parser.add_argument("options", nargs="*", help="for our command line, after --")
    return parser.parse_args()


LEGS = {
    "ours": ("val_loss", Contest.ours),
    "ours_half": ("half_val_loss", Contest.ours),
    "reference_gpt": ("reference_val_loss", Contest.reference),
    "x_transformers": ("xt_val_loss", Contest.x_transformers),
}


def main() -> None:
    """Print the rows `val_loss`, `half_val_loss`, `reference_val_loss`, `xt_val_loss` and `bytes_to_reference`."""
    args = parse()
    preset = PRESETS[args.preset]
    if preset.corpus == "shakespeare" and not (data_folder() / SHAKESPEARE).is_file():
        say(f"{data_folder() / SHAKESPEARE} is not there: nothing was measured; put the text there, or set the folder "
            "by LIGHTNING_XT_DATA")  # fmt: skip
        return report({}, preset.device)
    if preset.device == "cuda" and not torch.cuda.is_available():
        say(f"{args.preset} needs a GPU, and there is none: nothing was measured")
        return report({}, preset.device)
    names = list(dict.fromkeys(args.legs))
    if "x_transformers" in names and find_spec("x_transformers") is None:
        say("x-transformers is not installed: its leg is skipped; run pip install -e '.[bench]' for it")
        names.remove("x_transformers")
    if "ours_half" in names and "reference_gpt" not in names:
        say("ours_half is skipped: it takes its length from reference_gpt")
        names.remove("ours_half")
    runs: dict[str, list[Run]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(preset, Path(folder), args.evaluations, args.options)
        seconds = args.seconds or preset.seconds
        steps = {name: args.steps or count_steps(contest, name, seconds) for name in names if name != "ours_half"}
        if "ours_half" in names:
            steps["ours_half"] = args.steps or count_half_steps(steps["reference_gpt"], contest)
        for seed in range(args.seeds):
            for name in names:
                run = LEGS[name][1](contest, seed, steps[name])
                runs[name].append(run)
                last = run.curve[-1]
                say(f"{name}, seed {seed}: {last[2]:.4f} nats after {last[0]:.0f} s and {last[1]:,} bytes")
    rows = {LEGS[name][0]: summarise(each) for name, each in runs.items()}
    if (mine := runs.get("ours_half") or runs.get("ours")) and "reference_gpt" in runs:
        rows["bytes_to_reference"] = bytes_to_reference(mine, runs["reference_gpt"])
    return report(rows, preset.device)


if __name__ == "__main__":
    main()
