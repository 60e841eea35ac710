from typing import ClassVar

from lightning_xt.nn.mixers.delta_rule import DeltaRule


class GatedDeltaNet(DeltaRule):
    """Replace the value at a token's key in a memory of fixed size, whose older contents decay (gated delta rule).

    Yang et al., 2024. https://arxiv.org/abs/2412.06464
    S_t = a_t S_(t-1) (I - b_t k_t k_t^T) + b_t v_t k_t^T and o_t = S_t q_t. The paper's values are twice as wide as
    its keys (`value_dim`), and its keys of all heads 3/4 as wide as the stream; here all have the stream's width.
    """

    gated: ClassVar = True
