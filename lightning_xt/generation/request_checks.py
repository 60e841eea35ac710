"""Checks of requests and sampling parameters before decoding."""

from collections.abc import Sequence

import torch

from lightning_xt.core.extent import check_reach
from lightning_xt.generation.batching.row_inputs import check_same_fields
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams
from lightning_xt.system.option_checks import check_option


def check_requests(model: Autoregressive, requests: Sequence[Request], params: SamplingParams) -> None:
    """Raise a ValueError for a request or a sampling parameter out of range."""
    check_option("generation", "temperature", params.temperature, least=0)
    check_option("generation", "batch", params.batch, least=1)
    check_option("generation", "window", params.window, least=1)
    check_reach(params.window, model.recurrences)
    for request in requests:
        _check_request(model, request)
    if requests:
        if params.batch > 1:
            # Requests with soft prefixes of different lengths are prefilled separately.
            check_same_fields([request.inputs for request in requests], ignore="prefix")
        tokens = torch.cat([request.prompt for request in requests])
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= model.vocab_size:
            wrong = low if low < 0 else high
            raise ValueError(f"the prompt has token {wrong}, outside the vocabulary of 0 to {model.vocab_size - 1}")


def _check_request(model: Autoregressive, request: Request) -> None:
    check_option("generation", "max_new_tokens", request.max_new_tokens, least=1)
    if len(request.prompt) == 0:
        raise ValueError("the prompt is empty; give at least one token to start from")
    n, limit = request.prompt_length, model.max_length
    if limit is not None and request.total_length > limit:
        raise ValueError(
            f"a prompt of {n} tokens and {request.max_new_tokens} more make {request.total_length}, but the model's "
            f"positions reach only {limit} (max_length); shorten the prompt or ask for at most {max(0, limit - n)} "
            "tokens, because a window cannot slide over learned positions"
        )


def check_rows(name: str, tokens: object) -> None:
    """Raise a ValueError for ids that are not rows of tokens, and a TypeError for others than a tensor."""
    if not isinstance(tokens, torch.Tensor):
        raise TypeError(f"{name} is of type {type(tokens).__name__}; it must be a tensor of ids, (rows, tokens)")
    if tokens.dim() != 2:
        way = f"; use {name}[None]" if tokens.dim() == 1 else ""
        raise ValueError(f"{name} has shape {tuple(tokens.shape)}; it must be (rows, tokens){way}")
