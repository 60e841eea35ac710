"""Short causal convolution over tokens, feature by feature."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.nn.mixers.base import Carry


class ShortConvolution(nn.Module):
    """Sum of each feature over the token and the few before it, by learned weights.

    Nothing crosses the start of a row or of a document. `channels` is the number of features, `width` that of tokens,
    the token itself included.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.kernel = nn.Parameter(torch.empty(width, channels).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, x: Float[Tensor, "b n f"], carry: Carry) -> Float[Tensor, "b n f"]:
        """Return the sums in float32 or better."""
        past, n, x = self.width - 1, x.shape[1], carry.mask(x)
        kept = None if carry.cache is None else carry.cache.running.get("convolved")
        kept = x.new_zeros(x.shape[0], past, x.shape[2]) if kept is None else kept
        x = torch.cat((kept, x), dim=1)
        if carry.cache is not None:
            carry.cache.set_running("convolved", self._find_tail(x, carry))
        kernel = self.kernel.to(torch.promote_types(x.dtype, torch.float32))
        out = x[:, past:] * kernel[-1]
        for lag in range(1, self.width):
            earlier = x[:, past - lag : past - lag + n] * kernel[-1 - lag]
            if (documents := carry.documents) is not None:
                crosses = torch.ones_like(documents, dtype=torch.bool)
                crosses[:, lag:] = documents[:, lag:] != documents[:, : n - lag]
                earlier = earlier.masked_fill(crosses[..., None], 0.0)
            out = out + earlier
        return out

    def _find_tail(self, x: Float[Tensor, "b t f"], carry: Carry) -> Float[Tensor, "b _ f"]:
        """Return the last real tokens, of those before the forward and those of it."""
        past = self.width - 1
        if carry.real is None:
            return x[:, x.shape[1] - past :]
        at = carry.real.sum(dim=1)[:, None] + torch.arange(past, device=x.device)
        return x.gather(1, at[..., None].expand(-1, -1, x.shape[2]))
