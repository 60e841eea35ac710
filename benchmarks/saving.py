"""Cost of saving checkpoints. Usage: python benchmarks/saving.py [--saves 6] [--steps 20] [--rows NAME ...].

Each row trains a config through the command line, in a separate process, and saves `last.ckpt` repeatedly. The fraction
is that of the default interval: the seconds of a save over those of the same number of steps.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import report, say
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_xt.cli import main as lightning_xt

CONFIGS = Path(__file__).parents[1] / "configs" / "language"
INTERVAL = 500
"""The default of --checkpoint_every."""
SMALL = ["-c", str(CONFIGS / "quickstart.yaml")]
# The model of enwik8_base.yaml, on fewer tokens a step than a GPU would take: steps are never shorter.
BASE = [*SMALL, "--model.decoder.dim=512", "--model.decoder.depth=8", "--model.decoder.attention.heads=8"]
ROWS = {
    "quickstart": SMALL,
    "quickstart_average": [*SMALL, "--trainer.callbacks+=ExponentialAverage"],
    "wide": BASE,
}


class Seconds(Callback):
    """Callback that records the time of steps and saves."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.saves: list[float] = []
        self._begun = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        save = trainer.save_checkpoint

        def timed(*args: Any, **kwargs: Any) -> None:
            begun = time.perf_counter()
            save(*args, **kwargs)
            self.saves.append(time.perf_counter() - begun)

        trainer.save_checkpoint = timed  # type: ignore[method-assign]

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self._begun = time.perf_counter()

    def on_before_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        self.steps.append(time.perf_counter() - self._begun)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path("seconds.json").write_text(json.dumps({"steps": self.steps, "saves": self.saves}))


def measure_row(options: list[str], steps: int, saves: int, folder: Path) -> dict[str, Any]:
    """Train one row."""
    command = ["fit", *options, f"--trainer.max_steps={steps * saves}", f"--checkpoint_every={steps}"]
    command += ["--validate_every=null", "--sample_text.prompts=[]", "--trainer.limit_val_batches=0"]
    command += [
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.callbacks+=saving.Seconds",
    ]
    command += [f"--trainer.default_root_dir={folder}/runs", "--name=saving"]
    if lightning_xt(command) != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    seconds = json.loads(Path("seconds.json").read_text())
    # The first steps and the first save include work that is done once.
    step, save = statistics.median(seconds["steps"][steps:]), statistics.median(seconds["saves"][1:])
    worst = max(seconds["saves"][1:])
    return {
        "value": round(100 * save / (INTERVAL * step), 4),
        "worst": round(100 * worst / (INTERVAL * step), 4),
        "save_ms": round(1000 * save, 1),
        "step_ms": round(1000 * step, 1),
        "megabytes": round(next(folder.rglob("last.ckpt")).stat().st_size / 1e6, 1),
        "saves": len(seconds["saves"]),
    }


def main() -> None:
    """Print, for each row, the percentage of training time spent on saving."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20, help="between two savings")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    args = parser.parse_args()
    rows = {}
    for name in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            rows[name] = measure_row(ROWS[name], args.steps, args.saves, Path(folder))
        say(f"{name}: {rows[name]['value']} % of training time")
    report(rows, "cpu")


if __name__ == "__main__":
    main()
