"""Figures of one forward: attention weights, alignments, and losses of tokens."""

import math
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from lightning.pytorch.loggers import Logger
from torch import Tensor

from lightning_xt.inference.attention_maps import LayerWeights, compute_attention_maps
from lightning_xt.inference.figures.attention_figure import draw_attention
from lightning_xt.inference.figures.loss_strip import draw_loss_strip
from lightning_xt.inference.figures.token_labels import label_tokens
from lightning_xt.inference.token_losses import compute_token_losses
from lightning_xt.training.figures.example import Example
from lightning_xt.training.loggers.media import log_image

MOST_LAYERS = 8
"""Layers with a figure; of a deeper network, as many at equal distances, the first and the last among them."""


def log_attention(loggers: Sequence[Logger], network: Any, example: Example, step: int) -> None:
    """Log a figure of each layer, with a panel for each head, and the alignment of a translation."""
    maps = compute_attention_maps(network, example.read, source=example.source, inputs=example.inputs)
    read = label_tokens(example.tokenizer, example.read[0].tolist())
    source: list[str] = []
    if example.source is not None and example.source_tokenizer is not None:
        source = label_tokens(example.source_tokenizer, example.source[0].tolist())
    owners = {"decoder": (maps.decoder, read, read), "cross": (maps.cross, read, source)}
    owners["encoder"] = (maps.encoder, source or read, source or read)
    for part, (calls, queries, keys) in owners.items():
        for number in _choose(len(calls)):
            weights = calls[number].weights[0]
            titles = [f"head {head}" for head in range(len(weights))]
            image = draw_attention(weights, _fit(queries, weights, -2), _fit(keys, weights, -1), titles)
            log_image(loggers, f"attention/{part}_{number}", image, step)
    if maps.cross and example.predicted is not None:
        predicted = label_tokens(example.tokenizer, example.predicted[0].tolist())
        _log_alignment(loggers, maps.cross, predicted, source, step)


def log_losses(loggers: Sequence[Logger], network: Any, example: Example, step: int) -> None:
    """Log the text of an example, its tokens coloured by their losses."""
    if (tokens := example.tokens) is None:
        return
    losses = compute_token_losses(network, tokens, source=example.source, inputs=example.inputs)[0] / math.log(2)
    labels = label_tokens(example.tokenizer, tokens[0].tolist(), without_text="")
    title = f"step {step}: {float(losses.mean()):.3f} bits per token"
    image = draw_loss_strip(labels, [math.nan, *losses.tolist()], math.log2(example.tokenizer.vocab_size), title)
    log_image(loggers, "losses/tokens", image, step)


def _log_alignment(
    loggers: Sequence[Logger], cross: Sequence[LayerWeights], predicted: list[str], source: list[str], step: int
) -> None:
    """Log the mean over heads of each layer's attention to the source, a row for each predicted token."""
    chosen = [cross[number] for number in _choose(len(cross))]
    panels = [each.weights[0, :, :, each.persistent :].mean(dim=0) for each in chosen]
    for number, (call, weights) in enumerate(zip(chosen, panels, strict=True)):
        image = draw_attention(weights[None], predicted, _fit(source, weights, -1), [f"layer {call.layer}"])
        log_image(loggers, f"alignment/layer_{number}", image, step)


def _choose(count: int) -> list[int]:
    """Choose calls at equal distances."""
    if count <= MOST_LAYERS:
        return list(range(count))
    return [round(place * (count - 1) / (MOST_LAYERS - 1)) for place in range(MOST_LAYERS)]


def _fit(labels: list[str], weights: Float[Tensor, "*h i j"], axis: int) -> list[str]:
    """Put empty labels before those of tokens, for learned keys and memories."""
    return [""] * (weights.shape[axis] - len(labels)) + labels
