"""Decay of a state by a step size that each token chooses."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class StepDecay(nn.Module):
    """Decay exp(-rate * step) of each head, with a learned rate and a step of softplus(x + bias).

    Rates start between 1 and 16, steps between 0.001 and 0.1, as in Dao and Gu, 2024 (Mamba-2),
    https://arxiv.org/abs/2405.21060.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.log_rate = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        steps = torch.empty(heads).uniform_(-3, -1).mul(2.302585).exp()
        # Inverse of softplus.
        self.bias = nn.Parameter(steps + (-torch.expm1(-steps)).log())

    def forward(self, x: Float[Tensor, "b n h"]) -> tuple[Float[Tensor, "b n h"], Float[Tensor, "b n h"]]:
        """Return the steps, and the logarithms of the decays, in float32 or better."""
        wide = torch.promote_types(x.dtype, torch.float32)
        steps = F.softplus(x.to(wide) + self.bias.to(wide))
        return steps, -self.log_rate.to(wide).exp() * steps
