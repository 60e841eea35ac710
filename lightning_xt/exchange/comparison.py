"""Comparison of a model with its copy in another library."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.verification import Verification

Scorer = Callable[..., Float[Tensor, "1 n v"]]
"""Called with the ids of a sequence (1, n), or with those of a source and a target."""

TOLERANCE = 1e-4
"""Largest difference of logits, which both compute in float32."""


@torch.no_grad()
def compare_logits(
    model: ExportedModel, scorer: Scorer, reader: str, *, round_vectors: bool = True, tokens: int = 24
) -> Verification:
    """Compare the logits of a probe with those of the rounded weights here, and greedy tokens one by one.

    Where the two best logits are closer than the tolerance, their order does not count.

    Args:
        model: the model here.
        scorer: computes the logits of the other library.
        reader: the other library, for messages.
        round_vectors: True if tensors of one axis are written in the type of the export, too.
        tokens: greedy tokens to generate after the probe's first half.

    Raises:
        ValueError: the logits differ by more than the tolerance, or a token differs.
    """
    ours = _make_scorer(model.round_weights(vectors=round_vectors))
    difference = _compare_probe(model, ours, scorer, reader)
    *source, start = model.probe
    text = start[:, : max(1, start.shape[1] // 2)]
    equal = 0
    for number in range(min(tokens, model.max_length - text.shape[1])):
        own, other = ours(*source, text)[0, -1], scorer(*source, text)[0, -1]
        best = own.argmax()
        if other.argmax() != best and own[best] - own[other.argmax()] > 2 * TOLERANCE:
            raise ValueError(
                f"the export of {model.name} is wrong: {reader} generates another token after {number} greedy tokens; "
                "nothing was written"
            )
        equal += int(other.argmax() == best)
        text = torch.cat((text, best[None, None]), dim=1)
    return Verification(reader, difference, TOLERANCE, equal)


@torch.no_grad()
def compare_probe(model: ExportedModel, scorer: Scorer, reader: str) -> Verification:
    """Compare the logits of a probe alone, as `compare_logits` does, for models that generate nothing."""
    ours = _make_scorer(model.round_weights())
    return Verification(reader, _compare_probe(model, ours, scorer, reader), TOLERANCE)


def _compare_probe(model: ExportedModel, ours: Scorer, scorer: Scorer, reader: str) -> float:
    """Return the largest difference of the logits of a probe; ValueError if it is above the tolerance."""
    difference = float((ours(*model.probe) - scorer(*model.probe)).abs().max())
    if not difference <= TOLERANCE:
        raise ValueError(
            f"the export of {model.name} is wrong: the logits of {reader} differ by {difference:.3g}, more than "
            f"{TOLERANCE:g}; nothing was written"
        )
    return difference


def _make_scorer(network: nn.Module) -> Scorer:
    def score(*ids: Int[Tensor, "1 n"]) -> Float[Tensor, "1 n v"]:
        found: Tensor = network(*ids).float()
        return found

    return score
