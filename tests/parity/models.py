"""Pairs of a model of x-transformers and one of this project, with the same weights."""

from typing import Any

import torch
from parity.copier import copy_model
from parity.ledger import Ledger
from parity.reference import build, in_float64
from parity.rows import LENGTH, VOCAB, Row
from torch import Tensor, nn

from lightning_xt import LanguageModel


def build_pair(row: Row, seed: int = 0) -> tuple[nn.Module, LanguageModel, Ledger]:
    """Build both models of a row of a decoder, with the same weights, in evaluation mode."""
    theirs = build(row.theirs, seed, row.zeros).eval()
    model = LanguageModel.from_config(row.ours).double().eval()
    return theirs, model, copy_model(theirs, model.decoder, row.zeros)


def compute(theirs: nn.Module, *tokens: Tensor, **options: Any) -> Any:
    """Compute a forward of a model of x-transformers in float64."""
    with in_float64():
        return theirs(*tokens, **options)


def draw_tokens() -> Tensor:
    """Draw two rows of tokens."""
    return torch.randint(VOCAB, (2, LENGTH))


def draw(*shape: int) -> Tensor:
    """Draw numbers in float64."""
    return torch.randn(shape, dtype=torch.float64)
