"""Training of shards with compiled blocks, in processes without run-time checks of shapes.

python tests/compiled_shards.py FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from processes_fits import build_training
from processes_run import QUIET, run_in_processes
from torch._dynamo.utils import counters

from lightning_xt.models.sublayer import Sublayer
from lightning_xt.training.strategies.fsdp2 import FSDP2


class WatchBlocks(Callback):
    """Count the compiled frames before and after a validation."""

    def __init__(self) -> None:
        self.frames: list[int] = []

    def on_validation_start(self, *_: Any) -> None:
        self.frames.append(sum(counters["frames"].values()))

    on_validation_end = on_validation_start


def train(compile: bool | dict[str, Any]) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Train four steps on two processes; return the weights and the counts of compiled frames."""
    counters.clear()
    model, data = build_training("LanguageModel", "AdamW", 2)
    model.compile_options = compile
    watch = WatchBlocks()
    trainer = Trainer(
        max_steps=4,
        strategy=FSDP2(),
        devices=2,
        gradient_clip_val=0.1,
        val_check_interval=2,
        callbacks=[watch],
        **QUIET,
    )
    trainer.fit(model, data)
    assert not any("forward" in vars(block) for block in model.modules() if isinstance(block, Sublayer))
    return trainer.strategy.lightning_module_state_dict(), watch.frames


def main() -> None:
    """Compare with training that is not compiled, bit for bit."""
    folder = Path(sys.argv[1])
    (plain, none), (_, _) = run_in_processes(lambda: train(False), 2, folder, seconds=300)
    (compiled, frames), (_, other) = run_in_processes(lambda: train({"backend": "eager"}), 2, folder, seconds=300)
    assert none == [0] * len(none) and len(frames) == 4, (none, frames)
    assert frames[0] > 0 and frames == other, (frames, other)
    # Nothing is compiled in a validation, nor after the first steps.
    assert len({*frames}) == 1, frames
    assert plain.keys() == compiled.keys() and not any("_orig_mod" in name for name in compiled)
    assert all(torch.equal(plain[name], compiled[name]) for name in plain)
    print(f"{len(plain)} weights agree")


if __name__ == "__main__":
    main()
