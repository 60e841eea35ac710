from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.activations.base import ActivationFactory
from lightning_xt.nn.activations.gelu import GELU
from lightning_xt.nn.feedforward.base import FeedForward
from lightning_xt.system.option_checks import check_option, check_slots


class MLP(FeedForward):
    """Widen each token, apply an activation and narrow the token again.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    In x-transformers: ff_mult, ff_custom_activation, ff_no_bias, ff_dropout, ff_softclamp_value.

    Args:
        hidden_dim: width between the two maps. None = four times the stream's width.
        activation: activation function between the two maps.
        bias: True if the two maps have biases.
        dropout: fraction of the hidden features dropped in training.
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
        self.dropout = nn.Dropout(dropout)
        self.to_out = nn.Linear(hidden_dim, shape.dim, bias=bias)

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        hidden = self.to_hidden(x)
        if self.hidden_cap is not None:
            hidden = self.hidden_cap * (hidden / self.hidden_cap).tanh()
        return self.to_out(self.dropout(self.activation(hidden)))
