from typing import ClassVar

from lightning_xt.nn.mixers.delta_rule import DeltaRule


class DeltaNet(DeltaRule):
    """Replace the value at a token's key in a memory of fixed size, which keeps everything else (delta rule).

    Yang et al., 2024. https://arxiv.org/abs/2406.06484
    S_t = S_(t-1) (I - b_t k_t k_t^T) + b_t v_t k_t^T and o_t = S_t q_t, after Schlag et al., 2021,
    https://arxiv.org/abs/2102.11174.
    """

    gated: ClassVar = False
