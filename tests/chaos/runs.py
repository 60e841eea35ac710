"""Runs of the command line in separate processes, and the signals that they get."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import warm
from tiny_pairs import sentences

from chaos.compare import RunError
from chaos.moments import PLAN

LANGUAGE = """
seed_everything: 3
data:
  class_path: TextFiles
  init_args: {path: ../corpus.txt, seq_len: 16, batch_size: 4, eval_batch_size: 2}
model:
  class_path: LanguageModel
  init_args:
    decoder: {dim: 16, depth: 2, dropout: 0.2, attention: {heads: 2}}
    optimizer: {class_path: AdamW, init_args: {lr: 0.01, weight_decay: 0.1}}
    schedule: {class_path: WarmupCosine, init_args: {warmup_steps: 10}}
trainer: {accelerator: cpu, gradient_clip_val: 1.0, log_every_n_steps: 5, enable_progress_bar: false,
  limit_val_batches: 8}
sample_text: {generation: {max_new_tokens: 4}, prompts: [the]}
"""
PAIRS = """
seed_everything: 3
data:
  class_path: ParallelText
  init_args:
    {path: ../pairs.en, target_path: ../pairs.de, validation: 0.2, max_tokens: 128,
    tokenizer: {class_path: BPE, init_args: {vocab_size: 280}}}
model:
  class_path: Seq2Seq
  init_args:
    encoder: {dim: 16, depth: 1, dropout: 0.2, attention: {heads: 2, position: Rotary}}
    decoder: {dim: 16, depth: 1, dropout: 0.2, attention: {heads: 2, position: Rotary}}
    optimizer: {class_path: AdamW, init_args: {lr: 0.01, weight_decay: 0.1}}
    schedule: {class_path: WarmupCosine, init_args: {warmup_steps: 10}}
trainer: {accelerator: cpu, gradient_clip_val: 1.0, log_every_n_steps: 5, enable_progress_bar: false}
sample_text: {generation: {max_new_tokens: 4}}
"""
SAVED = 8
"""Optimizer steps between two checkpoints."""
SECONDS = 240
"""Seconds after which a process counts as hanging."""
RUN = Path("runs/chaos/0")
RESUME = ["-c", str(RUN / "config.yaml"), "--ckpt_path", "last"]


@dataclass(frozen=True)
class Setting:
    """Options of a run."""

    pairs: bool
    workers: int
    accumulate: int
    processes: int
    average: bool
    at_epochs_end: bool = False
    """True saves checkpoints at the ends of epochs."""
    keep: int = 0
    signals: tuple[str, ...] = ("SIGTERM", "SIGUSR1")
    """Signals that stop the run, one of them each time."""

    def __str__(self) -> str:
        kind = "sequence-to-sequence" if self.pairs else "language model"
        place = "at the end of epochs" if self.at_epochs_end else "within epochs"
        by = ", stopped by Ctrl-C" if "SIGINT" in self.signals else ""
        return (
            f"{kind}, workers {self.workers}, accumulation {self.accumulate}, processes {self.processes}, "
            f"average {'on' if self.average else 'off'}, saved {place}{by}"
        )

    def options(self, steps: int) -> list[str]:
        """Return the options of a run of `steps` optimizer steps."""
        # Within epochs: the epoch is not a multiple of the interval, except at the end of the run.
        epoch = SAVED if self.at_epochs_end else SAVED * 7 // 4
        options = {
            "--data.num_workers": self.workers,
            "--trainer.accumulate_grad_batches": self.accumulate,
            "--trainer.devices": self.processes,
            "--trainer.strategy": "ddp" if self.processes > 1 else "auto",
            "--trainer.limit_train_batches": epoch * self.accumulate,
            "--trainer.max_steps": steps,
            "--checkpoint_every": SAVED,
            # Once in a while a validation and a checkpoint fall together.
            "--validate_every": SAVED * 3 // 2,
            "--keep_checkpoints": self.keep,
        }
        if self.pairs:
            # A corpus in memory has no workers.
            options.pop("--data.num_workers")
        return [f"{name}={value}" for name, value in options.items()]


def prepare(setting: Setting, folder: Path) -> list[str]:
    """Write the inputs of a setting into a folder; return the options that name them from a folder within it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.txt").write_text("".join(random.Random(0).choices("the quick brown fox\n", k=4000)))
    pairs = sentences(200)
    (folder / "pairs.en").write_text("".join(f"{source}\n" for source, _ in pairs), encoding="utf-8")
    (folder / "pairs.de").write_text("".join(f"{target}\n" for _, target in pairs), encoding="utf-8")
    callbacks = [{"class_path": "chaos.moments.Moments"}]
    if setting.average:
        callbacks.append({"class_path": "ExponentialAverage", "init_args": {"decay": 0.9}})
    text = PAIRS if setting.pairs else LANGUAGE
    (folder / "chaos.yaml").write_text(text.replace("trainer: {", f"trainer: {{callbacks: {json.dumps(callbacks)}, "))
    return ["-c", "../chaos.yaml"]


@dataclass(frozen=True)
class Outcome:
    """Outcome of a process."""

    code: int
    seconds: float
    """Seconds from the plan's signal, or else from the start, to the end of the last process."""
    said: str


def fit(folder: Path, options: list[str], plan: dict[str, Any] | None = None) -> Outcome:
    """Run `fit` in a folder until the last of its processes has ended.

    Args:
        folder: the current folder of the run.
        options: of the command.
        plan: the signal to send, see `Moments`.

    Raises:
        RunError: the run or one of its processes hangs.
    """
    folder.mkdir(exist_ok=True)
    (folder / "signals.jsonl").unlink(missing_ok=True)
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHONFAULTHANDLER": "1"}
    environment[PLAN] = json.dumps(plan or {})
    started = time.time()
    (folder / "output.txt").write_bytes(b"")
    # The process group holds the workers and the other processes too.
    process = warm.Command(
        ["fit", *options], folder=folder, environment=environment, stdout=folder / "output.txt", session=True
    )
    code: int | None = None
    left: list[int] = []
    try:
        code = process.wait(SECONDS)
        while (left := _find_group(process.pid)) and time.time() < started + SECONDS:
            time.sleep(0.02)
    except subprocess.TimeoutExpired:
        # SIGABRT makes every process print its stack.
        os.killpg(process.pid, signal.SIGABRT)
        time.sleep(5)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    said = (folder / "output.txt").read_text(errors="replace").rstrip()
    if code is None:
        raise RunError(f"hangs: not done after {SECONDS} seconds, see {folder / 'output.txt'}")
    if left:
        raise RunError(f"leaves processes behind: {len(left)} run on after {SECONDS} seconds")
    sent = read_signals(folder)
    return Outcome(code, time.time() - (sent[0]["time"] if sent else started), said)


def _find_group(number: int) -> list[int]:
    """Return the running processes of a group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(group) == number and state not in "ZX":
                found.append(int(folder.name))
    return found


def complete(folder: Path, options: list[str]) -> None:
    """Run `fit` to its end.

    Raises:
        RunError: the exit code is not 0.
    """
    ended = fit(folder, options)
    if ended.code != 0:
        raise RunError(f"ends with exit code {ended.code}, its last line is: {last_line(ended.said)}")


def run_uninterrupted(folder: Path, options: list[str]) -> None:
    """Run `fit` to its end without signals, unless that has been done."""
    if not (folder / "whole").is_dir():
        complete(folder / "whole", options)


def last_line(text: str) -> str:
    return text.rpartition("\n")[2]


def read_signals(folder: Path) -> list[dict[str, Any]]:
    """Read the signals that were sent to the last process of a folder."""
    return _read_lines(folder / "signals.jsonl")


def read_saves(folder: Path) -> list[dict[str, Any]]:
    """Read the saves of all processes of a folder."""
    return _read_lines(folder / "saves.jsonl")


def _read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
