from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.value_mods.base import ValueMod
from lightning_xt.nn.value_mods.first_values import check_first, check_layers, follows_first


class ValueResidual(ValueMod):
    """Mix in the values of the first layer, by a fraction that each token chooses per head.

    Zhou et al., 2024. https://arxiv.org/abs/2410.17897
    The paper's fractions are numbers, as in WeightedValueResidual; these are a sigmoid of the token's hidden state.
    In x-transformers: add_value_residual, attn_learned_value_residual_mix; fails there with fewer key/value heads.
    """

    gate_maps = ("to_share",)

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        check_layers("ValueResidual", shape)
        self.shape = shape
        source_dim = shape.dim if shape.context_dim is None else shape.context_dim
        self.to_share = nn.Linear(source_dim, shape.kv_heads) if follows_first(shape) else None

    def check_first_values(self, shape: tuple[int, int]) -> None:
        check_first("ValueResidual", self.shape, shape)

    def forward(
        self,
        v: Float[Tensor, "b g n e"],
        x: Float[Tensor, "b n c"],
        earlier: tuple[Float[Tensor, "b _ n _"], ...],
        inputs: Inputs,
    ) -> Float[Tensor, "b g n e"]:
        if self.to_share is None or not earlier:
            return v
        first = earlier[0]
        own = self.to_share(x).sigmoid().mT.unsqueeze(-1)
        return first + own * (v - first)
