"""Texts longer than those of training, by positions. Usage: python benchmarks/lengths.py.

The base of ablations, and the base with each overlay that chooses other positions, are trained by `lightning-xt fit` on
windows of 256 bytes of Python's standard library. A row has their bits per byte of the whole validation split, cut into
windows of several lengths. In longer windows fewer bytes have little before them, so that even a model that never looks
back further than 256 bytes is better there. Overlapping windows of 256 (`256/64`: each begins 64 bytes after the one
before, and only its new bytes are measured) show how much that is: what is lower makes use of more than 256 bytes.

Each run is kept in --folder, and the command, given again, continues where it was stopped.
"""

import argparse
import json
import statistics
from pathlib import Path

from common import command, report, say

BASE = "rotary"
"""Row of the base, which has no overlay."""
OVERLAYS = (
    "rotary_partial", "yarn", "log_length_scale", "scalable_softmax", "no_positions", "sinusoidal_positions", "alibi",
    "hard_alibi", "relative_bias", "fire", "dynamic_bias", "xpos", "polar", "relative_sinusoidal", "forgetting",
    "randomized_positions",
)  # fmt: skip
TOKENS = 8192
"""Bytes in a batch of evaluation."""
CPU = ("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false")


def main() -> None:
    options = parse()
    rows = {}
    for seed in range(options.seeds):
        for name in options.overlays:
            measure(name, seed, options)
    for name in options.overlays:
        # From the folder.
        runs = [measure(name, seed, options) for seed in range(options.seeds)]
        each = {windows: [made[windows] for made in runs] for windows in options.windows}
        rows[name] = {
            "unit": "bits per byte of the whole validation split, by the windows' length and the bytes between them",
            "value": {windows: round(statistics.mean(values), 4) for windows, values in each.items()},
            "spread": {windows: [min(values), max(values)] for windows, values in each.items()},
            "repeats": len(runs),
        }
    report(rows, "cpu")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overlays", nargs="+", default=[BASE, *OVERLAYS], help=f"of configs/variants, or {BASE}")
    lengths = ["256/64", "256", "512", "1024", "2048", "4096"]
    parser.add_argument("--windows", nargs="+", default=lengths, help="their length, and / bytes from one to the next")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each")
    parser.add_argument("--steps", type=int, default=1465, help="of training, 1,024 bytes each")
    parser.add_argument("--folder", type=Path, default=Path("runs/lengths"), help="of the runs")
    parser.add_argument("options", nargs="*", help="for every command, after --")
    return parser.parse_args()


def measure(name: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the bits per byte of a run by its windows; what the folder has is not measured again."""
    file = options.folder / f"{name}-{seed}-{options.steps}.json"
    kept = json.loads(file.read_text()) if file.is_file() else {}
    if kept.get("options") != options.options:
        kept = {"options": options.options}
    if "run" not in kept:
        overlay = [] if name == BASE else ["-c", f"variants/{name}.yaml"]
        kept["run"] = command(
            "fit", "-c", "language/ablation_base.yaml", *overlay, f"--name={name}", f"--seed_everything={seed}",
            f"--data.seed={seed}", f"--trainer.max_steps={options.steps}", "--validate_every=null",
            "--sample_text.prompts=[]", f"--trainer.default_root_dir={options.folder}", *CPU, *options.options,
        )["run"]  # fmt: skip
        keep(file, kept)
    found = {}
    for windows in options.windows:
        if windows not in kept:
            length, _, stride = windows.partition("/")
            said = command(
                "validate", kept["run"], "--ckpt_path=last", f"--data.seq_len={length}",
                f"--data.stride={stride or 'null'}", f"--data.eval_batch_size={max(1, TOKENS // int(length))}",
                *CPU, *options.options,
            )  # fmt: skip
            kept[windows] = float(said["val/bits_per_byte"])
            keep(file, kept)
            say(f"{name}, seed {seed}, {windows}: {kept[windows]:.4f}")
        found[windows] = kept[windows]
    return found


def keep(file: Path, kept: dict[str, object]) -> None:
    """Write what is known of a run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(kept))
    # In one step, so that a killed process leaves a whole file.
    part.replace(file)


if __name__ == "__main__":
    main()
