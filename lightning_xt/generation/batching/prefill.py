"""Prefill: the prompts of several requests in one forward."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_xt.generation.batching.row_inputs import stack_inputs
from lightning_xt.generation.protocol import DecodingCache
from lightning_xt.generation.requests import Request


def prefill(
    forward: Callable[..., Tensor], requests: Sequence[Request], cache: DecodingCache, *, last_only: bool = True
) -> Tensor:
    """Run a model over the prompts of requests, of any lengths, with their inputs, into an empty cache.

    The soft prefixes of all rows have one length. With `last_only`, only the last token of each prompt is returned.
    """
    lengths = [len(request.prompt) for request in requests]
    prompts = pad_sequence([request.prompt for request in requests], batch_first=True)
    return forward(
        prompts,
        # None lets the model take the faster path for prompts of one length.
        lengths=torch.tensor(lengths, device=prompts.device) if min(lengths) < max(lengths) else None,
        inputs=stack_inputs([request.inputs for request in requests]),
        cache=cache,
        last_only=last_only,
    )
