from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.value_mods.base import ValueMod


class ValueResidual(ValueMod):
    """Mix in the values of the first layer, by a fraction that each token chooses per head.

    Zhou et al., 2024. https://arxiv.org/abs/2410.17897
    The paper's fractions are numbers, fixed or learned per layer; these are a sigmoid of the token's hidden state.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        if shape.depth == 1 and shape.calls > 1:
            raise ValueError(
                f"value_mods: ValueResidual mixes the first layer's values into other layers, but one layer is called "
                f"{shape.calls} times; raise depth, or omit ValueResidual"
            )
        self.shape = shape
        source_dim = shape.dim if shape.context_dim is None else shape.context_dim
        self.to_share = nn.Linear(source_dim, shape.kv_heads) if shape.layer > 0 else None

    def check_first_values(self, shape: tuple[int, int]) -> None:
        own = self.shape.kv_heads, self.shape.value_dim
        if self.to_share is not None and shape != own:
            raise ValueError(
                f"value_mods: ValueResidual mixes in the first layer's values, {shape[0]} heads of width {shape[1]}, "
                f"but layer {self.shape.layer} has {own[0]} of width {own[1]}; give both layers the same kv_heads, "
                "dim_head and value_dim"
            )

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
