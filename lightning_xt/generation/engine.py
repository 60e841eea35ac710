"""Decoding as it is asked for: tensors in and out, or requests and results."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.row_inputs import select_row
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.min_p import MinP
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.filters.top_p import TopP
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, Result, SamplingParams


def answer(
    model: Autoregressive, requests: Sequence[Request], choices: SamplingParams, method: Method | None = None
) -> list[list[Result]]:
    """The sequences that go on from each prompt, the best first.

    Args:
        model: a Decoder, or anything that keeps its protocol.
        requests: prompts of any lengths; what one gets does not depend on the others.
        choices: how tokens are chosen.
        method: how sequences are made of them. None = Sample.

    Raises:
        ValueError: a request or a choice is out of range, or the method cannot do what is asked.
    """
    method = Sample() if method is None else method
    with closing(method(model, requests, choices)) as drawn:
        return collect_results(drawn, len(requests))


def collect_results(drawn: Iterable[GeneratedToken], requests: int) -> list[list[Result]]:
    """The sequences of each request, put together from their tokens."""
    tokens: list[dict[int, list[GeneratedToken]]] = [{} for _ in range(requests)]
    for each in drawn:
        tokens[each.request].setdefault(each.sequence, []).append(each)
    return [[_result(sequences[number]) for number in sorted(sequences)] for sequences in tokens]


def _result(drawn: Sequence[GeneratedToken]) -> Result:
    log_probs = [each.log_prob for each in drawn]
    score = drawn[-1].score
    return Result([each.token for each in drawn], log_probs, sum(log_probs) if score is None else score)


def generate(
    model: Autoregressive,
    prompt: Int[Tensor, "b n"],
    max_new_tokens: int,
    *,
    lengths: Int[Tensor, " b"] | None = None,
    temperature: int | float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    filters: Sequence[Filter] = (),
    method: Method | None = None,
    seed: int = 0,
    end: int | None = None,
    pad: int = 0,
    window: int | None = None,
    inputs: Inputs | None = None,
) -> Int[Tensor, "b m"]:
    """Tokens that continue each prompt, (batch, max_new_tokens), without the prompt; fewer where all rows ended before.

    Args:
        model: a Decoder, or anything that keeps its protocol; it decodes in evaluation mode and is left as it was.
        prompt: ids; shorter rows are padded on the right with any valid id.
        max_new_tokens: most tokens to draw per row.
        lengths: real tokens of each row's prompt. None = all.
        temperature: applied before the filters; 0 always takes the likeliest token.
        top_k: draw from so many likeliest tokens. None = all.
        top_p: draw from the smallest set of likeliest tokens with so much probability. None = all.
        min_p: draw from tokens with at least this share of the highest probability. None = all.
        filters: what else changes the logits, before these three.
        method: how sequences are made; of several the best is given. None = Sample.
        seed: row r draws with seed + r, so the same seed gives the same tokens.
        end: token with which a row ends, itself included; it is looked for only in what is drawn. None = none.
        pad: what stands in a row after its end.
        window: tokens that each layer may look back, for texts longer than those a model was trained on. None = as the
            model has it.
        inputs: what the model needs beside tokens, with the prompt.

    Raises:
        ValueError: an argument out of range, an empty prompt, a token outside the vocabulary, or a text longer than
            the model's positions allow.
    """
    chosen = [*filters, *build_filters(top_k=top_k, top_p=top_p, min_p=min_p)]
    choices = SamplingParams(temperature=temperature, filters=chosen, end=end, batch=max(1, len(prompt)), window=window)
    results = answer(model, _requests(prompt, max_new_tokens, lengths, seed, inputs), choices, method)
    best = [sequences[0].tokens for sequences in results]
    width = max(map(len, best))
    return torch.tensor([row + [pad] * (width - len(row)) for row in best], device=prompt.device)


def stream(
    model: Autoregressive,
    prompt: Int[Tensor, "b n"],
    max_new_tokens: int,
    *,
    lengths: Int[Tensor, " b"] | None = None,
    temperature: int | float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    filters: Sequence[Filter] = (),
    seed: int = 0,
    end: int | None = None,
    pad: int = 0,
    window: int | None = None,
    inputs: Inputs | None = None,
) -> Generator[Int[Tensor, " b"], None, None]:
    """The same as `generate` with Sample, one token per row at a time, as soon as it is drawn."""
    chosen = [*filters, *build_filters(top_k=top_k, top_p=top_p, min_p=min_p)]
    choices = SamplingParams(temperature=temperature, filters=chosen, end=end, batch=max(1, len(prompt)), window=window)
    drawn = Sample()(model, _requests(prompt, max_new_tokens, lengths, seed, inputs), choices)
    return _side_by_side(drawn, len(prompt), pad, prompt.device)


def build_filters(*, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None) -> list[Filter]:
    """The filters that have options of their own, in the order in which they apply.

    Raises:
        ValueError: a value out of its range.
    """
    filters: list[Filter] = []
    if top_k is not None:
        filters.append(TopK(top_k))
    if top_p is not None:
        filters.append(TopP(top_p))
    if min_p is not None:
        filters.append(MinP(min_p))
    return filters


def _requests(
    prompt: Tensor, max_new_tokens: int, lengths: Tensor | None, seed: int, inputs: Inputs | None
) -> list[Request]:
    rows, width = prompt.shape
    if rows == 0:
        raise ValueError("the prompt has no rows; give at least one")
    if lengths is not None and bool((lengths > width).any()):
        raise ValueError(f"lengths says {int(lengths.max())} tokens, but the rows of the prompt have {width}")
    kept = [width] * rows if lengths is None else lengths.tolist()
    return [
        Request(
            prompt=prompt[row, : max(0, n)],
            max_new_tokens=max_new_tokens,
            seed=seed + row,
            inputs=select_row(inputs, row, max(0, n)),
        )
        for row, n in enumerate(kept)
    ]


def _side_by_side(
    drawn: Generator[GeneratedToken, None, None], rows: int, pad: int, device: torch.device
) -> Generator[Int[Tensor, " b"], None, None]:
    """One token of each row at a time, padded after the end of a row."""
    with closing(drawn):
        alive, tokens, ended = set(range(rows)), [pad] * rows, set()
        waited = set(alive)
        for each in drawn:
            tokens[each.request] = each.token
            waited.discard(each.request)
            if each.last:
                ended.add(each.request)
            if not waited:
                yield torch.tensor(tokens, device=device)
                alive -= ended
                tokens, waited = [pad] * rows, set(alive)
