"""What no request may ask for."""

from collections.abc import Sequence

import torch

from lightning_xt.generation.batching.row_inputs import check_same_fields, count_soft_tokens
from lightning_xt.generation.filters.temperature import Temperature
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams


def check_requests(model: Autoregressive, requests: Sequence[Request], choices: SamplingParams) -> None:
    """Raises a ValueError for a request or a choice out of range."""
    if choices.temperature != 0:
        Temperature(choices.temperature)
    if choices.batch < 1:
        raise ValueError(f"batch is {choices.batch}; at least 1 row must be decoded at once")
    if choices.window is not None and choices.window < 1:
        raise ValueError(f"window is {choices.window}; a token must be able to look at 1 token at least, itself")
    for request in requests:
        _check(model, request)
    if requests:
        if choices.batch > 1:
            # Those with soft prefixes of different lengths are read apart.
            check_same_fields([request.inputs for request in requests], but="prefix")
        every = torch.cat([request.prompt for request in requests])
        low, high = int(every.min()), int(every.max())
        if low < 0 or high >= model.vocab_size:
            wrong = low if low < 0 else high
            raise ValueError(f"the prompt has token {wrong}, outside the vocabulary of 0 to {model.vocab_size - 1}")


def _check(model: Autoregressive, request: Request) -> None:
    if request.max_new_tokens < 1:
        raise ValueError(f"the number of tokens to generate must be at least 1, not {request.max_new_tokens}")
    if len(request.prompt) == 0:
        raise ValueError("the prompt is empty; give at least one token to start from")
    n, limit = len(request.prompt) + count_soft_tokens(request.inputs), model.max_length
    total = n + request.max_new_tokens
    if limit is not None and total > limit:
        raise ValueError(
            f"a prompt of {n} tokens and {request.max_new_tokens} more make {total}, but the model's positions reach "
            f"only {limit} (max_length); "
            f"shorten the prompt or ask for at most {max(0, limit - n)} tokens, because a window cannot slide over "
            "positions that are learnt one by one"
        )
