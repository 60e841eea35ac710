"""Cost of other weights in completions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.generation.models.quantized_weights import measure_loss
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request
from lightning_xt.models.encoder_decoder import EncoderDecoder

MEASURED = 16
"""Completions by which the cost is measured."""


class GenerationCost:
    """Cost of other weights: the mean loss of prompts and completions, next to that of the weights as trained.

    Args:
        weights: name of their format.
        trained: the network as trained.
        lowered: the network with these weights.
    """

    def __init__(self, weights: str, trained: nn.Module, lowered: nn.Module) -> None:
        self.weights, self.trained, self.lowered = weights, trained, lowered
        self.tokens, self.texts = 0, 0
        self._sums = [0.0, 0.0]

    def add(self, request: Request, ids: Sequence[int]) -> None:
        """Add a completion; only the first few count."""
        if self.texts == MEASURED:
            return
        drawn = torch.tensor([*ids], dtype=torch.long, device=request.prompt.device)
        tokens = torch.cat((request.prompt, drawn))[None]
        with eval_mode(self.trained):
            for number, network in enumerate((self.lowered, self.trained)):
                decoder, inputs = _read_request(network, request)
                self._sums[number] += (tokens.shape[1] - 1) * measure_loss(decoder, tokens, inputs)
        self.tokens += tokens.shape[1] - 1
        self.texts += 1

    def __str__(self) -> str:
        lowered, trained = (each / self.tokens for each in self._sums)
        return f"weights {self.weights}: loss {lowered:.4f} nats a token, {trained:.4f} with float32"


@torch.no_grad()
def _read_request(network: Any, request: Request) -> tuple[Autoregressive, Inputs | None]:
    """Return the decoder of a network, and the inputs of a request, encoded by this network."""
    if not isinstance(network, EncoderDecoder):
        return network, request.inputs
    inputs = request.inputs
    if request.source is None or inputs is None or inputs.context is None:
        return network.decoder, inputs
    source = request.source[None, : inputs.context.shape[1]]
    return network.decoder, network.encode(source, inputs.context_mask)
