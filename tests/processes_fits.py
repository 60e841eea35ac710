"""Trainings that differ in nothing but the processes that share them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from processes_run import QUIET, Logged, in_processes
from tiny_pairs import NETWORK

from lightning_xt.data.pairs.parallel_text import ParallelText
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.training.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.seq2seq import Seq2Seq
from lightning_xt.training.strategies.fsdp2 import FSDP2

PLACES = {"one": 1, "ddp": 2, "FSDP2": 2}
"""How a training may be shared, and by how many processes."""
TIED = {"head": "TiedHead"}


class SavesHalfway(Callback):
    """Saves a checkpoint after the second step.

    Args:
        file: which.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2 and not self.file.exists():
            trainer.save_checkpoint(self.file)


@dataclass
class Fit:
    """What a training has come to.

    Args:
        steps: what each batch logged.
        weights: whole.
        optimizer: its state, whole.
        metrics: the last ones of a validation, of each process.
        seen: samples that all processes had.
    """

    steps: list[dict[str, float]]
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    metrics: list[dict[str, float]] = field(default_factory=list)
    seen: int = 0


def model_and_data(kind: str, optimizer: str, processes: int, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """A model that is the same everywhere, and data whose batches all processes together have one size of."""
    torch.manual_seed(0)
    options = {
        "optimizer": {"class_path": optimizer, "init_args": {"lr": 0.01}},
        "schedule": {"init_args": {"warmup_steps": 2}},
    }
    if kind == "LanguageModel":
        data: Any = TextFiles("corpus.txt", seq_len=8, batch_size=8 // processes, eval_batch_size=3)
        decoder = {"dim": 10, "depth": 2, "attention": {"heads": 2}, **TIED}
        return LanguageModel.from_config({"decoder": decoder, **options}).to(dtype), data
    given = {"tokenizer": SpecialBytes, "validation": 0.2, "max_tokens": 256 // processes}
    data = ParallelText("pairs.en", target_path="pairs.de", **given)
    decoder = {**NETWORK["decoder"], **TIED}
    network = {"encoder": NETWORK["encoder"], "decoder": decoder, "shared_embedding": True, "val_decode_pairs": 5}
    return Seq2Seq.from_config({**network, **options, "vocab": data.vocab}).to(dtype), data


def fit(
    folder: Path,
    place: str,
    *,
    kind: str = "LanguageModel",
    optimizer: str = "AdamW",
    steps: int = 4,
    accumulate: int = 1,
    clip: float | None = 0.1,
    dtype: torch.dtype = torch.float64,
    resume: Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Fit:
    """Trains in so many processes, from a checkpoint where one is named."""
    processes = PLACES[place]

    def train() -> Any:
        model, data = model_and_data(kind, optimizer, processes, dtype)
        logged = Logged()
        strategy: Any = {"one": "auto", "ddp": "ddp", "FSDP2": FSDP2()}[place]
        trainer = Trainer(
            max_steps=steps,
            strategy=strategy,
            devices=processes,
            callbacks=[logged, *callbacks],
            accumulate_grad_batches=accumulate,
            gradient_clip_val=clip,
            val_check_interval=2 * accumulate,
            plugins=[AtomicCheckpointIO()],
            **QUIET,
        )
        trainer.fit(model, data, ckpt_path=resume)
        weights = trainer.strategy.lightning_module_state_dict()
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        return (
            logged.steps,
            weights,
            trainer.strategy.optimizer_state(trainer.optimizers[0]),
            metrics,
            data.samples_seen,
        )

    # Parsed before it is forked, and copied there.
    model_and_data(kind, optimizer, processes)
    ranks = in_processes(train, processes, folder)
    # All processes log the same.
    assert all(rank[0] == ranks[0][0] for rank in ranks)
    return Fit(ranks[0][0], ranks[0][1], ranks[0][2], [rank[3] for rank in ranks], ranks[0][4])


assert_close = partial(torch.testing.assert_close, rtol=0, atol=1e-11)
"""Float64 with sums in another order; what is computed differently is off by much more."""
