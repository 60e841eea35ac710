"""Evaluation mode while a model decodes."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lightning_xt.generation.models.model_wrapper import ModelWrapper
from lightning_xt.generation.protocol import Autoregressive


@contextmanager
def eval_mode(model: Autoregressive | nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and restore afterwards the mode of each of its modules, such as frozen ones."""
    wrapped = model
    while isinstance(wrapped, ModelWrapper):
        wrapped = wrapped.model
    modes = [(part, part.training) for part in wrapped.modules()] if isinstance(wrapped, nn.Module) else []
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)
        for part, training in modes:
            part.training = training
