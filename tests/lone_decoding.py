"""Decoding of each request alone, its prefix recomputed for every token, and requests to compare by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from catalogue import CONDITION, CONTEXT, VOCAB

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.row_state import filter_logits
from lightning_xt.generation.batching.scheduler import Scheduler
from lightning_xt.generation.history import History
from lightning_xt.generation.noise import make_seeds, sample_tokens
from lightning_xt.generation.requests import Request, Result, SamplingParams
from lightning_xt.models.decoder import Decoder

PROMPTS = [3, 19, 1, 5, 2, 23, 4, 2, 1]
LENGTHS = [5, 2, 7, 1, 3, 2, 1, 6, 2]
END = 4  # a token with which about half of the texts end

NAMES = [
    "attention=GatedDeltaNet",
    "attention=Hybrid",
    "plain",
    "window",
    "memory-forgetting",
    "latent-query_latent-window",
    "looped-token_shift",
    "embeddings=TypeEmbedding",
    "norm=AdaptiveRMSNorm",
    "given_context-rotary-kv_heads",
    "given_context-latent",
]
EACH = pytest.mark.parametrize("name", NAMES)


@torch.no_grad()
def naive(model: Decoder, number: int, request: Request, params: SamplingParams) -> Result:
    """Generate one text, recomputing the prefix for each token."""
    text, given = request.prompt[None], Inputs() if request.inputs is None else request.inputs
    prompt, log_probs = torch.tensor([len(request.prompt)]), []
    for step in range(request.max_new_tokens):
        n, types = text.shape[1], given.types
        if types is not None:
            types = torch.cat((types, types[:, -1:].expand(1, n - types.shape[1])), dim=1)
        logits = model(text, inputs=replace(given, types=types))[:, -1]
        changed = filter_logits(logits, History(text, prompt, torch.tensor([n]), params.end), params)
        token = sample_tokens(
            changed, params.temperature, make_seeds([request.seed], text.device), torch.tensor([step])
        )
        log_probs.append(float(logits.log_softmax(dim=-1)[0, token]))
        text = torch.cat((text, token[:, None]), dim=1)
        if int(token) == params.end or (params.stop is not None and params.stop(number, int(token))):
            break
    return Result(text[0, len(request.prompt) :].tolist(), log_probs, sum(log_probs))


def make_requests(count: int = len(PROMPTS)) -> list[Request]:
    """Return requests of different lengths, with contexts of different widths, masked in some rows."""
    requests = []
    for row in range(count):
        n, width = PROMPTS[row], 1 + row % 3
        inputs = Inputs(
            condition=torch.randn(1, CONDITION).double(),
            context=torch.randn(1, width, CONTEXT).double(),
            context_mask=None if row % 4 == 1 else torch.arange(width)[None] < max(1, width - row % 2),
            types=torch.randint(0, 2, (1, n)),
        )
        prompt = torch.randint(0, VOCAB, (n,))
        requests.append(Request(prompt=prompt, max_new_tokens=LENGTHS[row], seed=100 - 7 * row, inputs=inputs))
    return requests


@contextmanager
def way(on_host: bool) -> Iterator[None]:
    """Decode as on a CPU, or on a CPU as on other devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scheduler, "on_host", property(lambda slots: on_host, lambda slots, value: None), raising=False)
        yield
