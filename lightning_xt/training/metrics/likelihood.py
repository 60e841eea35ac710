"""Sums that make an evaluation's number independent of how it was cut into batches."""

import math

import torch
from torch import Tensor

from lightning_xt.objectives.base import Loss


class LikelihoodSums:
    """Adds up negative log-likelihoods and counts in float64, on the device, without waiting for it.

    Args:
        device: where the losses are computed.
    """

    def __init__(self, device: torch.device) -> None:
        # Apple's GPUs know no float64.
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(2, dtype=precise, device=device)
        """Nats, and the tokens they were summed over."""

    def add(self, loss: Loss) -> None:
        """Takes up a batch."""
        self.sums += torch.stack((loss.total.to(self.sums.dtype), loss.count.to(self.sums.dtype)))


def compute_likelihood_metrics(sums: Tensor, tokens_per_byte: float = 1.0) -> dict[str, Tensor]:
    """What is reported of the sums of all processes.

    Args:
        sums: nats and tokens.
        tokens_per_byte: tokens that stand for a byte of text; 1 for models of bytes.

    Returns:
        loss (nats per token), bits_per_byte, perplexity (per token); float32.
    """
    loss = sums[0] / sums[1].clamp(min=1)
    metrics = {"loss": loss, "bits_per_byte": loss / math.log(2) * tokens_per_byte, "perplexity": loss.exp()}
    return {name: value.float() for name, value in metrics.items()}
