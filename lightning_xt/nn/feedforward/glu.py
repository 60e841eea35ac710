from abc import abstractmethod
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.feedforward.base import FeedForward
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.system.option_checks import check_option, check_slots


class GLU(FeedForward):
    """Gated linear unit: one half of the hidden features, after an activation, gates the other half.

    Shazeer, 2020. https://arxiv.org/abs/2002.05202

    Args:
        hidden_dim: width of each half. None = 8/3 of the stream's width, rounded up to a multiple of 8, which gives as
            many parameters as an MLP of four times the stream's width has.
        bias: True if the maps have biases.
        dropout: fraction of the hidden features dropped in training.
        hidden_norm: norm of the gated features, as in NormFormer (Shleifer, Weston and Ott, 2021,
            https://arxiv.org/abs/2110.09456). None = no norm.
        hidden_gain: True for a learned gain of each gated feature, 1 at the start.
    """

    @check_slots
    def __init__(
        self,
        shape: LayerShape,
        *,
        hidden_dim: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        hidden_norm: NormFactory | None = None,
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
        self.hidden_norm = None if hidden_norm is None else hidden_norm(replace(shape, dim=hidden_dim))
        self.dropout = nn.Dropout(dropout)
        self.to_out = nn.Linear(hidden_dim, shape.dim, bias=bias)

    def transform(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        return self(x, inputs), trace

    def forward(self, x: Float[Tensor, "b n D"], inputs: Inputs | None = None) -> Float[Tensor, "b n D"]:
        gate, hidden = self.to_hidden(x).chunk(2, dim=-1)
        gated = self.activate(gate) * self.bound(hidden)
        if self.gain is not None:
            gated = gated * self.gain.to(gated.dtype)
        if self.hidden_norm is not None:
            gated = self.hidden_norm(gated, inputs or Inputs()).to(gated.dtype)
        return self.to_out(self.dropout(gated))

    @abstractmethod
    def activate(self, gate: Float[Tensor, "b n f"]) -> Float[Tensor, "b n f"]:
        """Apply the activation of the gate."""

    def bound(self, hidden: Float[Tensor, "b n f"]) -> Float[Tensor, "b n f"]:
        """Bound the half that is gated; unchanged by default."""
        return hidden
