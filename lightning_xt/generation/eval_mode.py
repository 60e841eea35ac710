"""The mode in which models decode."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning_xt.generation.protocol import Autoregressive


@contextmanager
def eval_mode(model: Autoregressive) -> Iterator[None]:
    """Evaluation mode, and afterwards the mode that was before."""
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)
