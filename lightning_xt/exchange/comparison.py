"""Comparison of a model with its copy in another library."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.verification import Verification

Scorer = Callable[..., Float[Tensor, "1 n v"]]
"""Called with the ids of a sequence (1, n), or with those of a source and a target."""

TOLERANCE = 1e-4
"""Largest difference of logits in float32."""


@torch.no_grad()
def compare_logits(
    model: ExportedModel, scorer: Scorer, reader: str, tolerance: float = TOLERANCE, tokens: int = 24
) -> Verification:
    """Compare the logits of a probe, and greedy tokens one by one.

    Args:
        model: the model here.
        scorer: computes the logits of the other library.
        reader: the other library, for messages.
        tolerance: largest difference of logits. Where the two best logits are closer, their order does not count.
        tokens: greedy tokens to generate after the probe's first half.

    Raises:
        ValueError: the logits differ by more than the tolerance, or a token differs.
    """
    ours = _score(model)
    difference = float((ours(*model.probe) - scorer(*model.probe)).abs().max())
    if not difference <= tolerance:
        raise ValueError(
            f"the export of {model.name} is wrong: the logits of {reader} differ by {difference:.3g}, more than "
            f"{tolerance:g}; nothing was written"
        )
    *source, start = model.probe
    text = start[:, : max(1, start.shape[1] // 2)]
    tokens = min(tokens, model.max_length - text.shape[1])
    for number in range(tokens):
        own, other = ours(*source, text)[0, -1], scorer(*source, text)[0, -1]
        best = own.argmax()
        if other.argmax() != best and own[best] - own[other.argmax()] > 2 * tolerance:
            raise ValueError(
                f"the export of {model.name} is wrong: {reader} generates another token after {number} greedy tokens; "
                "nothing was written"
            )
        text = torch.cat((text, best[None, None]), dim=1)
    return Verification(reader, difference, tolerance, tokens)


def _score(model: ExportedModel) -> Scorer:
    network = model.network

    def score(*ids: Int[Tensor, "1 n"]) -> Float[Tensor, "1 n v"]:
        found: Tensor = network(*ids).float()
        return found

    return score
