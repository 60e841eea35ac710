from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.feedforward.base import FeedForward
from lightning_xt.system.option_checks import check_option


class GLU(FeedForward):
    """Gated linear unit: one half of the hidden features, after an activation, gates the other half.

    Shazeer, 2020. https://arxiv.org/abs/2002.05202

    Args:
        hidden_dim: width of each half. None = 8/3 of the stream's width, rounded up to a multiple of 8, which gives as
            many parameters as an MLP of four times the stream's width has.
        bias: True if the maps have biases.
        dropout: fraction of the hidden features dropped in training.
        hidden_gain: True for a learned gain of each gated feature, 1 at the start.
    """

    def __init__(
        self,
        shape: LayerShape,
        *,
        hidden_dim: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        hidden_gain: bool = False,
    ) -> None:
        super().__init__()
        hidden_dim = 8 * -(-shape.dim // 3) if hidden_dim is None else hidden_dim
        check_option(f"feedforward: {type(self).__name__}", "hidden_dim", hidden_dim, least=1)
        check_option(f"feedforward: {type(self).__name__}", "dropout", dropout, least=0, below=1)
        self.to_hidden = nn.Linear(shape.dim, 2 * hidden_dim, bias=bias)
        # Two maps in one weight, which optimizers of matrices split.
        self.stacked_rows = {"to_hidden": (hidden_dim, hidden_dim)}
        self.gain = nn.Parameter(torch.ones(hidden_dim)) if hidden_gain else None
        self.dropout = nn.Dropout(dropout)
        self.to_out = nn.Linear(hidden_dim, shape.dim, bias=bias)

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        gate, hidden = self.to_hidden(x).chunk(2, dim=-1)
        gated = self.activate(gate) * self.bound(hidden)
        if self.gain is not None:
            gated = gated * self.gain.to(gated.dtype)
        return self.to_out(self.dropout(gated))

    @abstractmethod
    def activate(self, gate: Float[Tensor, "b n f"]) -> Float[Tensor, "b n f"]:
        """Apply the activation of the gate."""

    def bound(self, hidden: Float[Tensor, "b n f"]) -> Float[Tensor, "b n f"]:
        """Bound the half that is gated; unchanged by default."""
        return hidden
