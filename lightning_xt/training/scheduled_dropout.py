import torch
from jaxtyping import Float
from torch import Tensor, nn


class ScheduledDropout(nn.Dropout):
    """Dropout with a fraction of its probability; a tensor holds the fraction.

    A compiled program reads the tensor at each call; that of nn.Dropout has its probability as a constant, and would be
    compiled again for each other one.

    Args:
        p: probability of the whole.
        fraction: a number on the device, neither trained nor saved; several dropouts may have the same.
    """

    def __init__(self, p: float, fraction: Float[Tensor, ""]) -> None:
        super().__init__(p)
        # Not a buffer, which would be copied by each dropout that moves to a device, and broadcast by DDP.
        self.fraction = fraction

    def forward(self, input: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        if not self.training:
            return input
        probability = self.p * self.fraction
        # In float32, because numbers of 16 bits are too coarse for a probability.
        kept = torch.rand_like(input, dtype=torch.float32) >= probability
        return (input * torch.where(kept, 1 / (1 - probability), 0.0)).to(input.dtype)
