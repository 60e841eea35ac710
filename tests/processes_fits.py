"""Trainings that differ only in the processes that share them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from matrix_steps import EVERY_OPTION
from processes_run import QUIET, Logged, run_in_processes
from tiny_pairs import NETWORK

from lightning_xt.data.chat.conversations import Conversations
from lightning_xt.data.pairs.parallel_text import ParallelText
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.nn.adapters.adapted_layer import list_adapter_parameters
from lightning_xt.training.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.masked_language_model import MaskedLanguageModel
from lightning_xt.training.seq2seq import Seq2Seq
from lightning_xt.training.strategies.fsdp2 import FSDP2

PLACES = {"one": 1, "ddp": 2, "FSDP2": 2}
"""Strategies and numbers of processes of a training."""
TIED = {"head": "TiedHead"}
OPTIONS = {"SOAPAdamW": {"precondition_every": 2}, "NorMuon": EVERY_OPTION}
"""Options of an optimizer besides its learning rate."""


class SavesHalfway(Callback):
    """Callback that saves a checkpoint after the second step.

    Args:
        file: path of the checkpoint.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 2 and not self.file.exists():
            trainer.save_checkpoint(self.file)


@dataclass
class Fit:
    """Result of a training.

    Args:
        steps: logged values of each batch.
        weights: full weights.
        optimizer: full state of the optimizer.
        metrics: metrics of the last validation, by process.
        seen: number of samples of all processes.
    """

    steps: list[dict[str, float]]
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    metrics: list[dict[str, float]] = field(default_factory=list)
    seen: int = 0


def build_training(kind: str, optimizer: str, processes: int, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """Build a model that is equal in all processes, and data with one total batch size for any number of processes."""
    torch.manual_seed(0)
    options = {
        "optimizer": {
            "class_path": "MuonAdamW" if optimizer == "NorMuon" else optimizer,
            "init_args": {"lr": 0.01, **OPTIONS.get(optimizer, {})},
        },
        "schedule": {"init_args": {"warmup_steps": 2}},
    }
    if kind == "LanguageModel":
        data: Any = TextFiles("corpus.txt", seq_len=8, batch_size=8 // processes, eval_batch_size=3)
        decoder = {"dim": 10, "depth": 2, "attention": {"heads": 2}, **TIED}
        return LanguageModel.from_config({"decoder": decoder, **options}).to(dtype), data
    if kind == "LoRA":
        data = TextFiles("corpus.txt", seq_len=8, batch_size=8 // processes, eval_batch_size=3)
        return build_adapted(options).to(dtype), data
    if kind == "Conversations":
        chats = {"validation": 0.2, "seq_len": 40, "template": "plain", "eval_batch_size": 3}
        data = Conversations("chat.jsonl", batch_size=4 // processes, **chats)
        decoder = {"dim": 10, "depth": 2, "attention": {"heads": 2}, **TIED}
        return LanguageModel.from_config({"decoder": decoder, **options, "vocab": data.vocab}).to(dtype), data
    if kind == "MaskedLanguageModel":
        data = TextFiles("corpus.txt", seq_len=8, batch_size=8 // processes, eval_batch_size=3)
        encoder = {"dim": 10, "depth": 2, "attention": {"heads": 2}}
        return MaskedLanguageModel.from_config({"encoder": encoder, **options}).to(dtype), data
    given = {"tokenizer": SpecialBytes, "validation": 0.2, "max_tokens": 256 // processes}
    data = ParallelText("pairs.en", target_path="pairs.de", **given)
    decoder = {**NETWORK["decoder"], **TIED}
    network = {"encoder": NETWORK["encoder"], "decoder": decoder, "shared_embedding": True, "val_decode_pairs": 5}
    return Seq2Seq.from_config({**network, **options, "vocab": data.vocab}).to(dtype), data


def build_adapted(options: dict[str, Any]) -> LanguageModel:
    """Build a model with an adapter that changes all maps, also those whose matrices parts read."""
    attention = {"heads": 2, "position": "DynamicBias"}
    decoder = {"dim": 10, "depth": 2, "embedding_dim": 6, "attention": attention, **TIED}
    adapter = {"class_path": "LoRA", "init_args": {"rank": 3, "targets": ["*"], "trained": ["*norm*"]}}
    model = LanguageModel.from_config({"decoder": decoder, "adapter": adapter, **options})
    with torch.no_grad():
        for name in list_adapter_parameters(model):
            model.get_parameter(name).normal_(std=0.3)
    return model


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
    """Train in a number of processes, from a checkpoint if one is named."""
    processes = PLACES[place]

    def train() -> Any:
        model, data = build_training(kind, optimizer, processes, dtype)
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
    build_training(kind, optimizer, processes)
    ranks = run_in_processes(train, processes, folder)
    # All processes log the same values.
    assert all(rank[0] == ranks[0][0] for rank in ranks)
    return Fit(ranks[0][0], ranks[0][1], ranks[0][2], [rank[3] for rank in ranks], ranks[0][4])


assert_close = partial(torch.testing.assert_close, rtol=0, atol=1e-11)
"""Tolerance of float64 sums in another order; a different computation is off by much more."""
