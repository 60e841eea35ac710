"""Decoding for callers: tensors in and out, or requests and results."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_xt.core.extent import check_lengths
from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.row_inputs import select_row
from lightning_xt.generation.batching.row_state import pad_rows
from lightning_xt.generation.filters.base import Filter
from lightning_xt.generation.filters.min_p import MinP
from lightning_xt.generation.filters.top_k import TopK
from lightning_xt.generation.filters.top_p import TopP
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.request_checks import check_rows
from lightning_xt.generation.requests import GeneratedToken, Request, Result, SamplingParams
from lightning_xt.system.option_checks import refuse_unknown


def run_requests(
    model: Autoregressive, requests: Sequence[Request], params: SamplingParams, method: Method | None = None
) -> list[list[Result]]:
    """Generate the sequences of each request, best first.

    Args:
        model: a Decoder, or any model that keeps its protocol.
        requests: prompts of any lengths; the result of one does not depend on the others.
        params: sampling parameters.
        method: decoding method. None = Sample.

    Raises:
        ValueError: a request or a parameter is out of range, or the method does not support it.
    """
    method = Sample() if method is None else method
    with closing(method(model, requests, params)) as tokens:
        return collect_results(tokens, len(requests))


def collect_results(tokens: Iterable[GeneratedToken], requests: int) -> list[list[Result]]:
    """Assemble the sequences of each request from their tokens."""
    found: list[dict[int, list[GeneratedToken]]] = [{} for _ in range(requests)]
    for each in tokens:
        found[each.request].setdefault(each.sequence, []).append(each)
    return [[_make_result(sequences[number]) for number in sorted(sequences)] for sequences in found]


def _make_result(tokens: Sequence[GeneratedToken]) -> Result:
    log_probs = [each.log_prob for each in tokens]
    score = tokens[-1].score
    return Result([each.token for each in tokens], log_probs, sum(log_probs) if score is None else score)


@refuse_unknown()
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
) -> Int[Tensor, "b t"]:
    """Continue each prompt; return (batch, max_new_tokens) tokens without the prompt, fewer if all rows ended before.

    Args:
        model: a Decoder, or any model that keeps its protocol; it decodes in evaluation mode and is left in its mode.
        prompt: ids; shorter rows are padded on the right with any valid id.
        max_new_tokens: most tokens to generate per row.
        lengths: tokens of each row's prompt without padding. None = all.
        temperature: divides the logits before the filters; 0 always takes the most likely token.
        top_k: sample from the `top_k` most likely tokens. None = all.
        top_p: sample from the smallest set of most likely tokens with this total probability. None = all.
        min_p: sample from tokens with at least this fraction of the highest probability. None = all.
        filters: further changes of the logits, before top_k, top_p and min_p.
        method: decoding method; if it ranks several sequences, the best is returned. None = Sample.
        seed: row r samples with seed + r, so the same seed gives the same tokens.
        end: end token of a row, itself included; only generated tokens are compared. None = there is none.
        pad: id that fills a row after its end.
        window: tokens that each layer can attend back to, for sequences longer than the trained length. None = the
            model's own.
        inputs: model inputs besides tokens, with the prompt.

    Raises:
        ValueError: an argument is out of range, a prompt is empty, a token is outside the vocabulary, or a sequence is
            longer than the model's positions allow.

    Examples:
        >>> import torch
        >>> from lightning_xt import Decoder, generate
        >>> model = Decoder(256, dim=64, depth=2)
        >>> generate(model, torch.zeros(2, 5, dtype=torch.long), max_new_tokens=8, top_k=40).shape
        torch.Size([2, 8])
    """
    chosen = [*filters, *build_filters(top_k=top_k, top_p=top_p, min_p=min_p)]
    params = SamplingParams(temperature=temperature, filters=chosen, end=end, batch=max(1, len(prompt)), window=window)
    requests = make_requests(prompt, max_new_tokens, lengths=lengths, seed=seed, inputs=inputs)
    results = run_requests(model, requests, params, method)
    return pad_rows([sequences[0].tokens for sequences in results], prompt.device, pad)


def stream(
    model: Autoregressive, requests: Sequence[Request], params: SamplingParams, *, pad: int = 0
) -> Generator[Int[Tensor, " b"], None, None]:
    """Yield the tokens of `run_requests` with Sample: one per request at a time, `pad` after the end of a request.

    All requests decode together, whatever `params.batch` says; ValueError if there are none.
    """
    if not requests:
        raise ValueError("stream has no requests; give at least one")
    together = replace(params, batch=len(requests))
    return _align_rows(Sample()(model, requests, together), len(requests), pad, requests[0].prompt.device)


def build_filters(*, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None) -> list[Filter]:
    """Build the filters of `top_k`, `top_p` and `min_p`, in the order in which they apply; ValueError if invalid."""
    filters: list[Filter] = []
    if top_k is not None:
        filters.append(TopK(top_k))
    if top_p is not None:
        filters.append(TopP(top_p))
    if min_p is not None:
        filters.append(MinP(min_p))
    return filters


def make_requests(
    prompt: Int[Tensor, "b n"],
    max_new_tokens: int,
    *,
    lengths: Int[Tensor, " b"] | None = None,
    seed: int = 0,
    inputs: Inputs | None = None,
) -> list[Request]:
    """Make each row's request from arguments of `generate`; ValueError without rows, or for invalid lengths."""
    check_rows("prompt", prompt)
    rows, width = prompt.shape
    if rows == 0:
        raise ValueError("the prompt has no rows; give at least one")
    if isinstance(lengths, Tensor) and bool((lengths > width).any()):
        raise ValueError(f"lengths says {int(lengths.max())} tokens, but the rows of the prompt have {width}")
    check_lengths(lengths, rows, width)
    kept = [width] * rows if lengths is None else lengths.tolist()
    return [
        Request(
            prompt=prompt[row, :n], max_new_tokens=max_new_tokens, seed=seed + row, inputs=select_row(inputs, row, n)
        )
        for row, n in enumerate(kept)
    ]


def _align_rows(
    tokens: Generator[GeneratedToken, None, None], rows: int, pad: int, device: torch.device
) -> Generator[Int[Tensor, " b"], None, None]:
    """Yield one token of each row at a time, padded after the end of a row."""
    with closing(tokens):
        alive, column, ended = set(range(rows)), [pad] * rows, set()
        missing = set(alive)
        for each in tokens:
            column[each.request] = each.token
            missing.discard(each.request)
            if each.last:
                ended.add(each.request)
            if not missing:
                yield torch.tensor(column, device=device)
                alive -= ended
                column, missing = [pad] * rows, set(alive)
