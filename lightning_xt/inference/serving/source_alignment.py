"""Alignment of a translation to its source by cross-attention."""

from collections.abc import Sequence

import torch

from lightning_xt.core.wide_floats import to_float64
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.inference.attention_maps import compute_attention_maps
from lightning_xt.inference.serving.events import Alignment
from lightning_xt.inference.translation import Translator

END_TEXT = "</s>"
"""Shown for an end token, which has no text."""


def compute_alignment(translator: Translator, source: Sequence[int], target: Sequence[int]) -> Alignment:
    """Compute the alignment of generated tokens to a source: the attention of the place that predicts each.

    Raises:
        ValueError: the network has no weights of cross-attention over the tokens of the source.
    """
    weights = _average_maps(translator, source, target[:-1])[: len(target)]
    source_end, target_end = translator.source_tokenizer.end, translator.end
    return Alignment(
        source_tokens=list_token_texts(translator.source_tokenizer, source, source_end),
        target_tokens=list_token_texts(translator.target_tokenizer, target, target_end),
        weights=weights.tolist(),
    )


def find_alignment_problem(translator: Translator) -> str | None:
    """Return a sentence if the network has no weights of cross-attention over the tokens of a source, else None."""
    try:
        _average_maps(translator, [0, 0], [])
    except ValueError as error:
        return str(error)
    return None


def list_token_texts(tokenizer: Tokenizer, ids: Sequence[int], end: int | None) -> list[str]:
    """Return the text of each token; a character of several tokens belongs to the last of them."""
    stream = tokenizer.stream()
    texts = [END_TEXT if token == end else stream.push(token) for token in ids]
    rest = stream.finish()
    if rest:
        last = max(place for place, token in enumerate(ids) if token != end)
        texts[last] += rest
    return texts


def _average_maps(translator: Translator, source: Sequence[int], target: Sequence[int]) -> torch.Tensor:
    """Return the mean weights of the places after the start token and each target token, (target + 1, source)."""
    device = translator.network.encoder.token_embedding.weight.device
    start = 0 if translator.start is None else translator.start
    maps = compute_attention_maps(
        translator.network,
        torch.tensor([[start, *target]], device=device),
        source=torch.tensor([list(source)], device=device),
    )
    layers = [each.weights[0, :, :, each.persistent :] for each in maps.cross]
    if not layers or any(each.shape[-1] != len(source) for each in layers):
        why = "no weights" if not layers else "weights over other vectors than the tokens of the source"
        raise ValueError(f"the model has no alignment: its cross-attention has {why}; translate without alignment")
    # Each layer's mean over its heads; layers may differ in their number.
    mean = torch.stack([to_float64(each).mean(dim=0) for each in layers]).mean(dim=0).clamp(min=0)
    total = mean.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, mean / total, 1 / len(source))
