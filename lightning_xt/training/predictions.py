"""Continues prompts, one after the other."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import torch

from lightning_xt.data.prompts import Prompt
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.engine import stream
from lightning_xt.models.decoder import Decoder
from lightning_xt.training.sampling import Sampling

LENGTH = 256
"""Tokens to produce unless told otherwise."""


def resolved(sampling: Sampling) -> Sampling:
    """The same with what a language model chooses where nothing was asked for."""
    return sampling.resolved(length=LENGTH, temperature=1.0)


def continue_prompts(
    decoder: Decoder, tokenizer: Tokenizer, prompts: Sequence[Prompt], sampling: Sampling
) -> list[dict[str, Any]]:
    """Samples one continuation for each prompt.

    Each prompt is sampled by itself, from the same seed: its text depends neither on the prompts beside it nor on the
    number of processes.

    Returns:
        For each prompt its id, the prompt, the text that follows it, and the settings.
    """
    sampling = resolved(sampling)
    settings = asdict(sampling)
    results = []
    for prompt in prompts:
        new = continued(decoder, tokenizer, prompt["prompt"], sampling)
        text = tokenizer.decode(list(new))
        results.append({"id": prompt["id"], "prompt": prompt["prompt"], "text": text, "settings": settings})
    return results


def continued(decoder: Decoder, tokenizer: Tokenizer, prompt: str, sampling: Sampling) -> Iterator[int]:
    """The ids that follow a prompt, as they are drawn, up to the end of the text or the length asked for.

    Raises:
        ValueError: the prompt is empty, and the tokenizer has no id that opens a text; or it is too long.
    """
    sampling = resolved(sampling)
    device = decoder.token_embedding.weight.device
    ids = torch.tensor([tokenizer.encode_prompt(prompt)], dtype=torch.long, device=device)
    # Closed at the end of the text too, because the model is put back into the mode it was in.
    with closing(stream(decoder, ids, sampling.length or LENGTH, **sampling.choices)) as tokens:
        for token in tokens:
            new = int(token)
            if new == tokenizer.end:
                return
            yield new
