"""Entries that lightning-xt adds to Lightning's checkpoints."""

import platform
from typing import Any

import lightning
import torch
from lightning.pytorch import LightningModule

import lightning_xt
from lightning_xt.checkpoints.migrations import CHECKPOINT_FORMAT
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.system.discovery import import_path
from lightning_xt.training.network_adaptation import count_trained


def run_metadata(module: LightningModule, tokenizers: dict[str, Tokenizer]) -> dict[str, Any]:
    """Collect plain values: where a checkpoint comes from, and its tokenizers."""
    contents: dict[str, Any] = {
        "format": CHECKPOINT_FORMAT,
        "version": lightning_xt.__version__,
        "kind": type(module).__name__,
        "tokenizers": {
            use: {"class_path": import_path(type(each)), "init_args": each.init_args}
            for use, each in tokenizers.items()
        },
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "lightning": lightning.__version__,
        },
    }
    trained, parameters = count_trained(module)
    if trained < parameters:
        contents["trained_parameters"] = trained
    trainer = module._trainer
    if trainer is not None:
        shown = trainer.callback_metrics.items()
        contents["trainer"] = {
            "precision": str(trainer.precision),
            "strategy": type(trainer.strategy).__name__,
            "device": trainer.strategy.root_device.type,
            "processes": trainer.world_size,
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
        }
        contents["metrics"] = {name: float(value) for name, value in shown if name.startswith(("train/", "val/"))}
        data = getattr(trainer, "datamodule", None)
        if data is not None:
            contents["data"] = {"class_path": import_path(type(data)), "hash": getattr(data, "content_hash", None)}
    return contents
