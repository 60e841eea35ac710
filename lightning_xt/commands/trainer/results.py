"""Last lines of the commands that run a Trainer, for people and scripts."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import Trainer

from lightning_xt.training.callbacks.best_checkpoint import BestCheckpoint


def collect_metrics(trainer: Trainer, split: str) -> dict[str, float]:
    """Return the newest metrics of a split, such as val/."""
    return {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith(split)}


def are_of_best(metrics: Mapping[str, float], trainer: Trainer, step: int) -> bool:
    """Return True if metrics of the last validation are those of `best.ckpt`, which has the weights of a step."""
    best = [each.best_model_score for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)]
    # A run that goes back leaves the file of later steps until a validation replaces it.
    return step == trainer.global_step and any(s is not None and float(s) == metrics.get("val/loss") for s in best)


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
