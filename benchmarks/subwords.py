"""Sub-words against bytes at equal time. Usage: python benchmarks/subwords.py.

Both legs train by `lightning-xt fit` on Python's standard library: `language/quickstart.yaml` on bytes, and
`language/subwords.yaml`, the same network, optimizer and tokens a step, on sub-words. The seconds of a training step of
each are measured in turn, so that other programs disturb both, and the sub-words get as many steps as take the time of
--steps on bytes. The result is the bits per byte of the whole validation split after the last step. The tokenizer is
trained and the text encoded once, before that; the seconds of this are reported. Each run is kept in --folder, and the
command, given again, continues where it was stopped.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from common import report, say

from lightning_xt.cli import main as lightning_xt
from lightning_xt.data.text.standard_library import StandardLibrary
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.system.shipped_configs import find_config
from lightning_xt.training.language_model import LanguageModel

RECIPES = {"bytes": "language/quickstart.yaml", "subwords": "language/subwords.yaml"}
WARMUP = 3
"""Steps that are not measured."""


def main() -> None:
    options = parse()
    started = time.perf_counter()
    prepare()
    tokenizing = round(time.perf_counter() - started, 1)
    milliseconds = time_steps(options.timed)
    equal = round(options.steps * milliseconds["bytes"] / milliseconds["subwords"])
    steps = {"bytes": options.steps, "subwords": options.subword_steps or equal}
    rows = {name: contest(name, steps[name], options) for name in RECIPES}
    for name, row in rows.items():
        row["step_ms"] = round(milliseconds[name], 1)
    rows["subwords"]["tokenizing_seconds"] = tokenizing
    report(rows, "cpu")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="steps of a run on bytes")
    parser.add_argument("--subword_steps", type=int, help="those on sub-words (default: as many as take the time)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each leg")
    parser.add_argument("--timed", type=int, default=25, help="steps of each leg that are timed")
    parser.add_argument("--folder", type=Path, default=Path("runs/subwords"), help="of the finished runs")
    parser.add_argument("options", nargs="*", help="for the command line of every run, after --")
    return parser.parse_args()


def read_recipe(name: str) -> dict[str, Any]:
    """Return a recipe."""
    return dict(yaml.safe_load(find_config(RECIPES[name]).read_text(encoding="utf-8")))


def prepare() -> StandardLibrary:
    """Return the corpus of sub-words, tokenized."""
    data = read_recipe("subwords")["data"]["init_args"]
    sub_words = data.pop("tokenizer")["init_args"]
    corpus = StandardLibrary(**data, tokenizer=lambda: BPE(**sub_words))
    corpus.prepare_data()
    _ = corpus.splits
    return corpus


def time_steps(count: int) -> dict[str, float]:
    """Return the median milliseconds of a training step of each leg; the legs take turns."""
    steps = {name: build_step(name) for name in RECIPES}
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARMUP + count):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            found[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(each[WARMUP:]) for name, each in found.items()}


def build_step(name: str) -> Any:
    """Return a training step of a leg on random tokens."""
    data, network = read_recipe(name)["data"]["init_args"], build_network(name)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    tokens = torch.randint(0, network.vocab_size, (data["batch_size"], data["seq_len"] + 1))

    def step() -> None:
        optimizer.zero_grad()
        network(tokens).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return step


def build_network(name: str) -> LanguageModel:
    """Return the network of a leg."""
    recipe = read_recipe(name)
    data, model = recipe["data"]["init_args"], recipe["model"]["init_args"]
    size = data["tokenizer"]["init_args"]["vocab_size"] if "tokenizer" in data else 256
    vocab = {"source": size, "target": size, "pad": None, "start": None, "end": None, "separator": None}
    return LanguageModel.from_config({**model, "vocab": vocab})


def contest(name: str, steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run the seeds of a leg, and return its row."""
    runs = [run(name, steps, seed, options.folder, options.options) for seed in range(options.seeds)]
    each = [made["bits_per_byte"] for made in runs]
    return {
        "value": round(statistics.mean(each), 4),
        "unit": "bits per byte of the whole validation split",
        "spread": [min(each), max(each)],
        "each": each,
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in build_network(name).parameters()),
        "repeats": len(each),
    }


def run(name: str, steps: int, seed: int, folder: Path, options: Sequence[str] = ()) -> dict[str, Any]:
    """Return the result of a run, which is trained unless the folder has it."""
    recipe = " ".join([find_config(RECIPES[name]).read_text(encoding="utf-8"), *options])
    file = folder / f"{name}-{steps}-{seed}.json"
    if file.is_file() and (kept := json.loads(file.read_text()))["recipe"] == recipe:
        return dict(kept)
    command = ["fit", "-c", RECIPES[name], f"--name={name}", f"--trainer.max_steps={steps}"]
    command += [f"--validate_every={steps}", f"--seed_everything={seed}", f"--data.seed={seed}"]
    command += ["--sample_text.prompts=[]", f"--trainer.default_root_dir={folder}", "--trainer.accelerator=cpu"]
    command += ["--trainer.devices=1", "--trainer.enable_progress_bar=false", *options]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = lightning_xt(command)
    if code:
        sys.exit(f"the command line failed: {' '.join(command)}\n{printed.getvalue()}")
    said = dict(line.split("=", 1) for line in printed.getvalue().splitlines() if line.startswith("val/"))
    made = {"recipe": recipe, "bits_per_byte": float(said["val/bits_per_byte"])}
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made))
    say(f"{name}, {steps} steps, seed {seed}: {made['bits_per_byte']:.4f} bits per byte")
    return made


if __name__ == "__main__":
    main()
