"""Last lines of the commands that run a Trainer, for people and scripts."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import Trainer


def collect_metrics(trainer: Trainer, split: str) -> dict[str, float]:
    """Return the newest metrics of a split, such as val/."""
    return {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith(split)}


def print_results(command: str, trainer: Trainer, folder: Path | None, metrics: Mapping[str, float]) -> None:
    """Print what a user does next after fit, the run and the metrics, bits per byte last; one process prints."""
    if not trainer.is_global_zero:
        return
    if command == "fit" and folder is not None:
        quoted, module = shlex.quote(str(folder)), trainer.lightning_module
        usable = any(folder.glob("checkpoints/*.ckpt")) and not getattr(module, "needed_inputs", None)
        if usable and getattr(module, "no_generation", None) is None:
            print(f'sample:      lightning-xt generate {quoted} --prompt "..."')
        elif usable:
            print(f"fill gaps:   lightning-xt predict {quoted} --data.predict_prompts prompts.txt --output gaps.jsonl")
        if any(folder.glob("events.*")):
            print(f"tensorboard: tensorboard --logdir {quoted}")
    if folder is not None:
        print(f"run={folder}")
    for name in sorted(metrics, key=lambda name: (name.endswith("bits_per_byte"), name)):
        print(f"{name}={metrics[name]:.6f}")
    print(end="", flush=True)
