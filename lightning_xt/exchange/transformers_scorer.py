"""Logits of models of `transformers`."""

from typing import Any

from torch import Tensor

from lightning_xt.exchange.comparison import Scorer


def make_transformers_scorer(network: Any) -> Scorer:
    """Return the scorer of a model: of ids, or of those of a source and a target."""

    def score(*ids: Tensor) -> Tensor:
        names = ("input_ids", "decoder_input_ids") if len(ids) == 2 else ("input_ids",)
        logits: Tensor = network(**dict(zip(names, ids, strict=True))).logits
        return logits

    return score
