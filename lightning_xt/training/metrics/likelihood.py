"""Likelihood metrics as sums, which do not depend on the batches of an evaluation."""

import math

import torch
from torch import Tensor

from lightning_xt.objectives.base import Loss


class LikelihoodSums:
    """Sums of negative log-likelihoods and counts in float64, on the device of the losses, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        # Apple's GPUs have no float64.
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(2, dtype=precise, device=device)
        """Nats, and the number of their tokens."""

    def add(self, loss: Loss) -> None:
        """Add a batch."""
        self.sums += torch.stack((loss.total.to(self.sums.dtype), loss.count.to(self.sums.dtype)))


def compute_likelihood_metrics(sums: Tensor, bytes_per_token: float) -> dict[str, Tensor]:
    """Compute loss (nats per token), bits_per_byte and perplexity (per token), float32, from sums of nats and tokens.

    Args:
        sums: nats, and the number of their tokens.
        bytes_per_token: mean bytes of a token of the text, so that models with different tokenizers compare.
    """
    loss = sums[0] / sums[1].clamp(min=1)
    metrics = {"loss": loss, "bits_per_byte": loss / math.log(2) / bytes_per_token, "perplexity": loss.exp()}
    return {name: value.float() for name, value in metrics.items()}
