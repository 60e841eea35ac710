import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.adapted_matrix import get_matrix
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.activations.base import ActivationFactory
from lightning_xt.nn.activations.gelu import GELU
from lightning_xt.nn.feedforward.base import FeedForward
from lightning_xt.system.option_checks import check_option, check_slots

DRAWN = "NestedMLP"
"""Name of the drawn width in the trace."""


class NestedMLP(FeedForward):
    """Train feedforwards of several widths at once, each of which is the first part of the next wider one.

    Devvrit et al., 2023 (MatFormer). https://arxiv.org/abs/2310.07707
    Each width is half of the next. In training every forward draws one for all layers, each alike often; experts of
    MixtureOfExperts draw their own. `halvings` makes a smaller model of the same weights, without training; with
    LayerwiseFeedForward a different one in each layer (Mix'n'Match).

    Args:
        hidden_dim: largest width between the two maps. None = four times the stream's width.
        activation: activation function between the two maps.
        bias: True if the two maps have biases.
        dropout: fraction of the hidden features dropped in training.
        widths: number of widths.
        halvings: width in evaluation and decoding: that many times the half of the largest, 0 for the largest.
    """

    @check_slots
    def __init__(
        self,
        shape: LayerShape,
        *,
        hidden_dim: int | None = None,
        activation: ActivationFactory = GELU,
        bias: bool = False,
        dropout: float = 0.0,
        widths: int = 4,
        halvings: int = 0,
    ) -> None:
        super().__init__()
        where = "feedforward: NestedMLP"
        hidden_dim = 4 * shape.dim if hidden_dim is None else hidden_dim
        check_option(where, "widths", widths, least=1, most=30)
        check_option(where, "hidden_dim", hidden_dim, least=2 ** (widths - 1))
        check_option(where, "dropout", dropout, least=0, below=1)
        check_option(where, "halvings", halvings, least=0, most=widths - 1)
        self.widths, self.hidden_dim, self.kept = widths, hidden_dim, hidden_dim >> halvings
        self.to_hidden = nn.Linear(shape.dim, hidden_dim, bias=bias)
        self.activation = activation()
        self.dropout = nn.Dropout(dropout)
        self.to_out = nn.Linear(hidden_dim, shape.dim, bias=bias)

    def transform(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        if not self.training:
            return self(x), trace
        if DRAWN not in trace.drawn:
            trace = trace.keep_drawn(DRAWN, self._draw(x))
        return self._run(x, trace.drawn[DRAWN]), trace

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        if self.training:
            return self._run(x, self._draw(x))
        if self.kept == self.hidden_dim:
            out: Tensor = self.to_out(self.activation(self.to_hidden(x)))
            return out
        # Weights of other formats make a matrix of another type.
        bias = None if self.to_hidden.bias is None else self.to_hidden.bias[: self.kept].to(x.dtype)
        hidden = self.activation(F.linear(x, get_matrix(self.to_hidden)[: self.kept].to(x.dtype), bias))
        bias = None if self.to_out.bias is None else self.to_out.bias.to(x.dtype)
        return F.linear(hidden, get_matrix(self.to_out)[:, : self.kept].to(x.dtype), bias)

    def _draw(self, x: Float[Tensor, "b n D"]) -> Int[Tensor, "1"]:
        """Draw a number of halvings, which stays on the device."""
        return torch.randint(0, self.widths, (1,), device=x.device)

    def _run(self, x: Float[Tensor, "b n D"], halvings: Int[Tensor, "1"]) -> Float[Tensor, "b n D"]:
        """Run with the first features of a drawn width."""
        seen = torch.arange(self.hidden_dim, device=x.device) < (self.hidden_dim >> halvings)
        hidden = self.activation(self.to_hidden(x))
        out: Tensor = self.to_out(self.dropout(hidden * seen.to(hidden.dtype)))
        return out
