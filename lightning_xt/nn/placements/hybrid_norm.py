from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.placements.base import Placement


class HybridNorm(Placement):
    """Normalize the stream after attention, and neither the input nor the output of feedforwards.

    Zhuo et al., 2025. https://arxiv.org/abs/2503.04598
    A layer computes y = norm(x + attention(x)), then y + feedforward(y). The paper also normalizes queries, keys and
    values, which are options of attention: qk_norm, and ValueNorm among the value_mods.
    """

    def __init__(self, shape: LayerShape, norm: NormFactory) -> None:
        super().__init__(stream=None if shape.kind == "feedforward" else norm(shape))
