"""The command `ablate`."""

import hashlib
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import lightning_xt
from lightning_xt.commands.ablation.budget import Budget
from lightning_xt.commands.ablation.overlays import read_probes, read_text, read_variants
from lightning_xt.commands.ablation.process_runner import ProcessRunner
from lightning_xt.commands.ablation.study import Study
from lightning_xt.commands.ablation.study_board import write_board
from lightning_xt.commands.ablation.study_folder import StudyFolder
from lightning_xt.commands.ablation.study_page import format_page
from lightning_xt.commands.ablation.study_plan import StudyPlan
from lightning_xt.commands.ablation.study_plot import draw_study
from lightning_xt.commands.ablation.study_results import StudyResults
from lightning_xt.commands.ablation.study_rows import StudyRow
from lightning_xt.commands.ablation.study_tables import format_csv, format_json, format_markdown, format_runs
from lightning_xt.commands.plots.plot_files import write_plot
from lightning_xt.system.cores import count_usable_cores
from lightning_xt.system.messages import UserError, make_visible

UPDATE = 60.0
"""Seconds between two writings of the tables of a study under way."""
TRAINING = ("core", "nn", "models", "objectives", "data", "training", "commands/trainer")
"""Folders of the package on which a training depends."""
RUNNING = ("commands/ablation/child_training.py", "commands/ablation/child_process.py")
"""Files that set up the training of a run."""
OPTIONS_OF_STUDY = {
    "--trainer.max_steps": "the budget decides",
    "--validate_every": "each run is validated after its last step",
    "--seed_everything": "set --seeds",
    "--data.seed": "set --seeds",
    "--ckpt_path": "every run trains new weights",
    "--resume": "the same command resumes the study in --out",
    "--name": "set --out",
}
"""Options of fit that a study sets, with the way out."""


def report(options: Namespace, rest: Sequence[str]) -> int:
    """Run an ablation; return the exit code."""
    plan = make_plan(options, rest)
    folder = StudyFolder(Path(options.out or Path("ablations", Path(plan.base[0].path).stem)))
    if options.threads is None:
        # Bits depend on the threads, not on how many runs there are at a time.
        plan = replace(plan, threads=(folder.read_plan() or {}).get("threads", plan.threads))
    workers = choose_workers(options.workers)
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    runner = ProcessRunner(workers, plan.threads, devices)
    study = Study(plan, folder, runner, _say, _Updates())
    study.run()
    rows = write_tables(study.results)
    write_plot(draw_study(study.results, rows), folder.option, folder.path / "table.svg")
    write_board(study.results, folder)
    print(make_visible(format_markdown(study.results, rows)))
    print(f"study={folder.path}", flush=True)
    return 0


def make_plan(options: Namespace, rest: Sequence[str]) -> StudyPlan:
    """Return the plan of a study; UserError for options that are invalid."""
    if not options.config:
        raise UserError("ablate needs a base, such as -c language/ablation_base.yaml")
    if not options.variants:
        raise UserError("ablate needs overlays: --variants variants/*.yaml")
    if options.budget is None:
        raise UserError("ablate needs the budget of each run: --budget bytes=4M, or flops=, seconds= or steps=")
    for arg in rest:
        if (name := arg.partition("=")[0]) in OPTIONS_OF_STUDY:
            raise UserError(f"ablate {name}: omit it; {OPTIONS_OF_STUDY[name]}")
    if not options.probe_metric.startswith(("val/", "test/")):
        raise UserError(
            f"ablate --probe_metric {options.probe_metric} is not that of a split; give val/... or test/..."
        )
    for name in ("seeds", "floor"):
        if getattr(options, name) < 1:
            raise UserError(f"ablate --{name} is {getattr(options, name)}; it must be at least 1")
    return StudyPlan(
        base=tuple(map(read_text, options.config)),
        options=tuple(rest),
        variants=read_variants(options.variants, options.combine),
        budget=Budget.parse(options.budget),
        seeds=options.seeds,
        floor=options.floor,
        rates=parse_rates(options.tune),
        code=hash_code(),
        probes=read_probes(options.probes),
        probe_metric=options.probe_metric,
        threads=choose_threads(options.threads, choose_workers(options.workers)),
        versions={"lightning-xt": lightning_xt.__version__, "torch": str(torch.__version__)},
    )


def hash_code() -> str:
    """Return a hash of the sources of the package on which a training depends."""
    package, digest = Path(lightning_xt.__file__).parent, hashlib.sha256()
    files = [file for room in TRAINING for file in (package / room).rglob("*.py")]
    for file in sorted([*files, *(package / name for name in RUNNING)]):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def parse_rates(text: str | None) -> tuple[float, ...]:
    """Parse the learning rates to choose from, such as lr=0.01,0.02; UserError if they are malformed."""
    if text is None:
        return ()
    name, _, values = text.partition("=")
    try:
        rates = tuple(map(float, values.split(",")))
    except ValueError:
        rates = ()
    if name != "lr" or len(rates) < 2 or len(set(rates)) < len(rates) or not all(0 < rate < 1e6 for rate in rates):
        raise UserError(f"ablate --tune {text} does not name learning rates; give two or more, as lr=0.01,0.02,0.04")
    return rates


def choose_workers(given: int) -> int:
    """Return the number of runs at the same time; UserError if it is below 1."""
    if given < 1:
        raise UserError(f"ablate --workers is {given}; it must be at least 1")
    return given


def choose_threads(given: int | None, workers: int) -> int:
    """Return the threads of a run, by default all cores divided by the runs at the same time; UserError if none."""
    if given is not None and given < 1:
        raise UserError(f"ablate --threads is {given}; it must be at least 1")
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(limit) if limit.isdecimal() and int(limit) else count_usable_cores()
    return given or max(1, min(cores, count_usable_cores() // workers))


def write_tables(results: StudyResults) -> list[StudyRow]:
    """Write the tables of a study as far as it is done, and return their rows."""
    rows = results.build_rows()
    for name, text in (
        ("table.md", format_markdown(results, rows)),
        ("table.csv", format_csv(results, rows)),
        ("table.json", format_json(results, rows)),
        ("table.html", format_page(results, rows)),
        ("runs.csv", format_runs(results)),
    ):
        results.folder.write_text(name, text)
    return rows


class _Updates:
    """Writes the tables of a study while it is under way, now and then."""

    def __init__(self) -> None:
        self._written = time.monotonic()

    def __call__(self, results: StudyResults) -> None:
        if time.monotonic() - self._written > UPDATE:
            write_tables(results)
            self._written = time.monotonic()


def _say(line: str) -> None:
    print(f"lightning-xt: {make_visible(line)}", file=sys.stderr, flush=True)
