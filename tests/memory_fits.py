"""Trainings with memories in the current folder; as a script, compiled ones, which print their numbers of programs.

python tests/memory_fits.py
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch._dynamo.utils import counters

from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.training.language_model import LanguageModel

DECODER = {"dim": 8, "depth": 2, "attention": {"heads": 2}}
QUIET = {
    "log_every_n_steps": 1,
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": None,
    "val_check_interval": 3,
    "use_distributed_sampler": False,
}


def write_corpus() -> None:
    """Write a text with documents."""
    words = torch.randint(97, 123, (1100,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    words[10::29] = 255
    Path("corpus.txt").write_bytes(bytes(words))


def build(segments: str = "SegmentRecurrence", dropout: float = 0.2, memory: int = 6, **options: Any) -> LanguageModel:
    """Build a model with 4 tokens a segment, two of a window, and 6 remembered tokens."""
    torch.manual_seed(3)
    given = {"class_path": segments, "init_args": {"length": 4, "memory": memory}}
    decoder = {**DECODER, "dropout": dropout, "segments": given}
    model = LanguageModel.from_config({"decoder": decoder, "schedule": None, **options})
    torch.nn.init.normal_(model.decoder.head.to_logits.weight)
    return model


def open_lanes(**options: Any) -> TextFiles:
    return TextFiles("corpus.txt", order="lanes", **{"seq_len": 8, "batch_size": 2, "eval_lanes": 3} | options)


def fit(steps: int, *, data: Any = None, model: Any = None, ckpt_path: Any = None, **options: Any) -> Any:
    torch.manual_seed(5 if ckpt_path is None else 99)
    model = model or build()
    run = Trainer(max_steps=steps, **{"devices": 1} | QUIET | options)
    run.fit(model, data or open_lanes(), ckpt_path=ckpt_path)
    return model


def main() -> None:
    """Compare compiled trainings with others, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_corpus()
        for segments, memory in (("SegmentRecurrence", 6), ("SegmentRecurrence", 30), ("MemoryTokens", 6)):
            weights = []
            for options in (False, {"backend": "eager", "fullgraph": True}):
                torch._dynamo.reset()
                counters.clear()
                # A pass ends in the fit.
                data = open_lanes(batch_size=12)
                model = fit(12, model=build(segments, memory=memory, compile=options), data=data, limit_val_batches=0)
                weights.append(model.state_dict())
            torch.testing.assert_close(*weights, rtol=0, atol=0)
            print(f"{segments} {memory}: {counters['stats']['unique_graphs']}", flush=True)


if __name__ == "__main__":
    main()
