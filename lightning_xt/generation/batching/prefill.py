"""Prompts that are read together."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_xt.generation.batching.row_inputs import stack_inputs
from lightning_xt.generation.protocol import DecodingCache
from lightning_xt.generation.requests import Request


def read_prompts(
    read: Callable[..., Tensor], requests: Sequence[Request], memory: DecodingCache, *, last_only: bool = True
) -> Tensor:
    """What a model makes of the prompts of requests, each of its own length, and of their inputs.

    Args:
        read: a model, or what is called as one.
        requests: one a row; their soft prefixes are equally long.
        memory: empty.
        last_only: whether only the last token of each prompt is of interest.
    """
    lengths = [len(request.prompt) for request in requests]
    prompts = pad_sequence([request.prompt for request in requests], batch_first=True)
    return read(
        prompts,
        # None lets the model take the shorter way of prompts of one length.
        lengths=torch.tensor(lengths, device=prompts.device) if min(lengths) < max(lengths) else None,
        inputs=stack_inputs([request.inputs for request in requests]),
        cache=memory,
        last_only=last_only,
    )
