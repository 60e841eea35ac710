from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.activations.base import ActivationFactory
from lightning_xt.nn.activations.gelu import GELU
from lightning_xt.nn.feedforward.glu import GLU
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.system.option_checks import check_slots


class GatedMLP(GLU):
    """Gate one half of the hidden features by any activation of the other.

    Shazeer, 2020. https://arxiv.org/abs/2002.05202
    In x-transformers: ff_glu, ff_custom_activation.

    Args:
        activation: activation function of the gate.
        hidden_dim: width of each half. None = 8/3 of the stream's width, rounded up to a multiple of 8.
        bias: True if the maps have biases.
        dropout: fraction of the hidden features dropped in training.
        hidden_norm: norm of the gated features. None = no norm.
        hidden_gain: True for a learned gain of each gated feature, 1 at the start.
    """

    @check_slots
    def __init__(
        self,
        shape: LayerShape,
        *,
        activation: ActivationFactory = GELU,
        hidden_dim: int | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        hidden_norm: NormFactory | None = None,
        hidden_gain: bool = False,
    ) -> None:
        super().__init__(
            shape, hidden_dim=hidden_dim, bias=bias, dropout=dropout, hidden_norm=hidden_norm, hidden_gain=hidden_gain
        )
        self.activation = activation()

    def activate(self, gate: Float[Tensor, "b n f"]) -> Float[Tensor, "b n f"]:
        out: Tensor = self.activation(gate)
        return out
