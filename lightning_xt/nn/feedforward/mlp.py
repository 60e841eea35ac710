from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.activations.base import ActivationFactory
from lightning_xt.nn.activations.gelu import GELU
from lightning_xt.nn.feedforward.base import FeedForward
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.system.option_checks import check_option, check_slots


class MLP(FeedForward):
    """Widen each token, apply an activation and narrow the token again.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    In x-transformers: ff_mult, ff_custom_activation, ff_no_bias, ff_dropout, ff_softclamp_value,
    ff_post_act_ln.

    Args:
        hidden_dim: width between the two maps. None = four times the stream's width.
        activation: activation function between the two maps.
        bias: True if the two maps have biases.
        dropout: fraction of the hidden features dropped in training.
        hidden_norm: norm of the features after the activation, as in NormFormer (Shleifer, Weston and Ott, 2021,
            https://arxiv.org/abs/2110.09456). None = no norm.
        hidden_cap: bounds the features before the activation smoothly, to cap * tanh(x / cap). None = no bound.
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
        hidden_norm: NormFactory | None = None,
        hidden_cap: float | None = None,
    ) -> None:
        super().__init__()
        hidden_dim = 4 * shape.dim if hidden_dim is None else hidden_dim
        check_option("feedforward: MLP", "hidden_dim", hidden_dim, least=1)
        check_option("feedforward: MLP", "dropout", dropout, least=0, below=1)
        check_option("feedforward: MLP", "hidden_cap", hidden_cap, above=0)
        self.hidden_cap = hidden_cap
        self.to_hidden = nn.Linear(shape.dim, hidden_dim, bias=bias)
        self.activation = activation()
        self.hidden_norm = None if hidden_norm is None else hidden_norm(replace(shape, dim=hidden_dim))
        self.dropout = nn.Dropout(dropout)
        self.to_out = nn.Linear(hidden_dim, shape.dim, bias=bias)

    def transform(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        return self(x, inputs), trace

    def forward(self, x: Float[Tensor, "b n D"], inputs: Inputs | None = None) -> Float[Tensor, "b n D"]:
        hidden = self.to_hidden(x)
        if self.hidden_cap is not None:
            hidden = self.hidden_cap * (hidden / self.hidden_cap).tanh()
        hidden = self.activation(hidden)
        if self.hidden_norm is not None:
            hidden = self.hidden_norm(hidden, inputs or Inputs()).to(hidden.dtype)
        return self.to_out(self.dropout(hidden))
