"""Evaluation mode while a model decodes."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lightning_xt.generation.protocol import Autoregressive


@contextmanager
def eval_mode(model: Autoregressive | nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode and restore its previous mode afterwards."""
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)
