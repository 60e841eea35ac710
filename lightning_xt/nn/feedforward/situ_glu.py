from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.feedforward.glu import GLU
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.system.option_checks import check_option, check_slots


class SiTUGLU(GLU):
    """Gate as SwiGLU, with the linear factors of gate and gated half bounded smoothly: cap * tanh(x / cap).

    Kimi Team, 2026 (Kimi K3). https://arxiv.org/abs/2607.24653
    No hidden feature is larger than the product of both caps.
    In x-transformers: ff_glu_softclamp, ff_glu_gate_softclamp_value, ff_glu_up_softclamp_value.

    Args:
        hidden_dim: width of each half. None = 8/3 of the stream's width, rounded up to a multiple of 8.
        bias: True if the maps have biases.
        dropout: fraction of the hidden features dropped in training.
        hidden_norm: norm of the gated features. None = no norm.
        hidden_gain: True for a learned gain of each gated feature, 1 at the start.
        gate_cap: limit of the linear factor of the gate.
        gated_cap: limit of the half that is gated.
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
        gate_cap: float = 4.0,
        gated_cap: float = 25.0,
    ) -> None:
        super().__init__(
            shape, hidden_dim=hidden_dim, bias=bias, dropout=dropout, hidden_norm=hidden_norm, hidden_gain=hidden_gain
        )
        for name, cap in (("gate_cap", gate_cap), ("gated_cap", gated_cap)):
            check_option("feedforward: SiTUGLU", name, cap, above=0)
        self.gate_cap, self.gated_cap = gate_cap, gated_cap

    def activate(self, gate: Float[Tensor, "b n f"]) -> Float[Tensor, "b n f"]:
        return self.gate_cap * (gate / self.gate_cap).tanh() * gate.sigmoid()

    def bound(self, hidden: Float[Tensor, "b n f"]) -> Float[Tensor, "b n f"]:
        return self.gated_cap * (hidden / self.gated_cap).tanh()
