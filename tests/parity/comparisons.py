"""Comparisons of two models after a copy."""

from parity.ledger import Ledger
from parity.reference import in_float64
from torch import Tensor
from torch.testing import assert_close

CLOSE = {"rtol": 1e-8, "atol": 1e-8}


def compare_training(their_loss: Tensor, our_loss: Tensor, ledger: Ledger) -> None:
    """Assert that two losses are equal, and so are the gradients of all copied weights."""
    assert_close(our_loss, their_loss, **CLOSE)
    with in_float64():
        their_loss.backward()
    our_loss.backward()
    found = ledger.map_gradients()
    for name, weight in ledger.theirs.named_parameters():
        if name in ledger.zeros:
            continue
        wanted = weight.new_zeros(weight.shape) if weight.grad is None else weight.grad
        assert_close(found[name], wanted, **CLOSE, msg=lambda said, name=name: f"{name}: {said}")


def compare_logits(ours: Tensor, theirs: Tensor) -> None:
    """Assert that logits are equal, and not small."""
    assert theirs.abs().max() > 0.1
    assert_close(ours, theirs, **CLOSE)
