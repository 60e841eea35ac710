"""Decoding: read the prompt once, then draw one token after the other through the cache."""

from collections.abc import Generator, Sequence
from contextlib import closing

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.min_p import MinP
from lightning_xt.generation.filters.temperature import Temperature
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.filters.top_p import TopP
from lightning_xt.generation.protocol import Autoregressive

ASK_EVERY = 16  # steps after which a GPU is asked whether all rows have ended


def generate(
    model: Autoregressive,
    prompt: Int[Tensor, "b n"],
    seq_len: int,
    *,
    lengths: Int[Tensor, " b"] | None = None,
    temperature: int | float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    end: int | None = None,
    pad: int = 0,
    inputs: Inputs | None = None,
) -> Int[Tensor, "b m"]:
    """Tokens that continue each prompt, (batch, seq_len), without the prompt; fewer where all rows ended before.

    Args:
        model: a Decoder, or anything that keeps its protocol; it decodes in evaluation mode and is left as it was.
        prompt: ids; shorter rows are padded on the right with any valid id.
        seq_len: tokens to draw per row.
        lengths: real tokens of each row's prompt. None = all.
        temperature: applied before the filters; 0 always takes the likeliest token.
        top_k: draw from so many likeliest tokens. None = all.
        top_p: draw from the smallest set of likeliest tokens with so much probability. None = all.
        min_p: draw from tokens with at least this share of the highest probability. None = all.
        seed: row r draws from a generator seeded with seed + r, so the same seed gives the same tokens.
        end: token with which a row ends, itself included; it is looked for only in what is drawn. None = none.
        pad: what stands in a row after its end.
        inputs: what the model needs beside tokens, with the prompt.

    Raises:
        ValueError: an argument out of range, an empty prompt, a token outside the vocabulary, or a text longer than
            the model's positions allow.
    """
    drawn = stream(
        model,
        prompt,
        seq_len,
        lengths=lengths,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        end=end,
        pad=pad,
        inputs=inputs,
    )
    tokens = torch.stack(list(drawn), dim=1)
    if end is None:
        return tokens
    # A GPU is asked only now and then, and may have gone on for some steps.
    ends = tokens == end
    needed = (ends.cumsum(dim=1) - ends.long() == 0).any(dim=0)
    return tokens[:, : int(needed.sum())]


def stream(
    model: Autoregressive,
    prompt: Int[Tensor, "b n"],
    seq_len: int,
    *,
    lengths: Int[Tensor, " b"] | None = None,
    temperature: int | float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    end: int | None = None,
    pad: int = 0,
    inputs: Inputs | None = None,
) -> Generator[Int[Tensor, " b"], None, None]:
    """The same as `generate`, one token per row at a time, as soon as it is drawn."""
    filters = standard_filters(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    _check_request(model, prompt, seq_len, lengths, inputs)
    device = prompt.device
    generators = [torch.Generator(device).manual_seed(seed + row) for row in range(prompt.shape[0])]
    steps = _steps(model, prompt, seq_len, lengths, filters, None if temperature == 0 else generators, inputs)
    return steps if end is None else _until_ended(steps, end, pad)


def standard_filters(
    *, temperature: int | float = 1.0, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None
) -> list[Filter]:
    """The filters of a request, in the order in which they apply: the temperature comes first.

    Raises:
        ValueError: a value out of its range.
    """
    filters: list[Filter] = []
    if temperature not in (0, 1):
        filters.append(Temperature(temperature))
    if top_k is not None:
        filters.append(TopK(top_k))
    if top_p is not None:
        filters.append(TopP(top_p))
    if min_p is not None:
        filters.append(MinP(min_p))
    return filters


def _steps(
    model: Autoregressive,
    prompt: Tensor,
    seq_len: int,
    lengths: Tensor | None,
    filters: Sequence[Filter],
    generators: Sequence[torch.Generator] | None,
    inputs: Inputs | None,
) -> Generator[Tensor, None, None]:
    was_training = model.training
    model.train(False)
    try:
        cache = model.new_cache(prompt.shape[0], _prompt_length(prompt, inputs) + seq_len)
        # Entered anew for each forward: whoever reads the stream does so outside inference mode.
        with torch.inference_mode():
            logits = model(prompt, lengths=lengths, inputs=inputs, cache=cache, last_only=True)
            token = draw(logits[:, -1], filters, generators)
        yield token
        inputs = _inputs_of_a_step(inputs, lengths)
        for _ in range(seq_len - 1):
            with torch.inference_mode():
                logits = model(token[:, None], inputs=inputs, cache=cache, last_only=True)
                token = draw(logits[:, -1], filters, generators)
            yield token
    finally:
        model.train(was_training)


def _until_ended(steps: Generator[Tensor, None, None], end: int, pad: int) -> Generator[Tensor, None, None]:
    """The same tokens, padded after the end of each row, until every row has ended."""
    with closing(steps):
        ended: Tensor | None = None
        for number, token in enumerate(steps):
            if ended is not None:
                token = token.masked_fill(ended, pad)
            yield token
            ended = token == end if ended is None else ended | (token == end)
            # To ask is to wait for the device.
            if (ended.device.type == "cpu" or number % ASK_EVERY == ASK_EVERY - 1) and bool(ended.all()):
                return


def draw(
    logits: Float[Tensor, "b v"], filters: Sequence[Filter], generators: Sequence[torch.Generator] | None
) -> Int[Tensor, " b"]:
    """One token per row.

    Args:
        logits: scores of the next token.
        filters: applied in order, in float32.
        generators: one per row. None = the likeliest token.
    """
    logits = logits.float()
    for apply in filters:
        logits = apply(logits)
    if generators is None:
        return logits.argmax(dim=-1)
    # The largest of p / e with e exponentially distributed is a draw from p, and needs no wait for the device.
    races = [torch.empty_like(row).exponential_(generator=g) for row, g in zip(logits, generators, strict=True)]
    return (logits.softmax(dim=-1) / torch.stack(races)).argmax(dim=-1)


def _inputs_of_a_step(inputs: Inputs | None, lengths: Tensor | None) -> Inputs | None:
    """What of the prompt's inputs holds for each token after it; a new token is of the type of the last one read."""
    if inputs is None:
        return None
    types = inputs.types
    if types is not None:
        types = types[:, -1:] if lengths is None else types.gather(1, (lengths - 1)[:, None])
    return Inputs(condition=inputs.condition, types=types)


def _prompt_length(prompt: Tensor, inputs: Inputs | None) -> int:
    soft = 0 if inputs is None or inputs.prefix is None else inputs.prefix.shape[1]
    return prompt.shape[1] + soft


def _check_request(
    model: Autoregressive, prompt: Tensor, seq_len: int, lengths: Tensor | None, inputs: Inputs | None
) -> None:
    if seq_len < 1:
        raise ValueError(f"the number of tokens to generate must be at least 1, not {seq_len}")
    if prompt.numel() == 0 or (lengths is not None and bool((lengths < 1).any())):
        raise ValueError("the prompt is empty; give at least one token to start from")
    if lengths is not None and bool((lengths > prompt.shape[1]).any()):
        raise ValueError(f"lengths says {int(lengths.max())} tokens, but the rows of the prompt have {prompt.shape[1]}")
    low, high = int(prompt.min()), int(prompt.max())
    if low < 0 or high >= model.vocab_size:
        raise ValueError(
            f"the prompt has token {low if low < 0 else high}, outside the vocabulary of 0 to {model.vocab_size - 1}"
        )
    n, limit = _prompt_length(prompt, inputs), model.max_length
    if limit is not None and n + seq_len > limit:
        raise ValueError(
            f"a prompt of {n} tokens and {seq_len} more make {n + seq_len}, but the model's positions reach only "
            f"{limit} (max_length); shorten the prompt or ask for at most {max(0, limit - n)} tokens"
        )
