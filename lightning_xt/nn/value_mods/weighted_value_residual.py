import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.value_mods.base import ValueMod
from lightning_xt.nn.value_mods.first_values import check_first, check_layers, follows_first


class WeightedValueResidual(ValueMod):
    """Mix in the values of the first layer, by two numbers per layer.

    Zhou et al., 2024 (ResFormer). https://arxiv.org/abs/2410.17897
    In x-transformers: add_value_residual, attn_learned_value_residual_mix; false, and halves of both.

    Args:
        own_weight: factor of the layer's own values.
        first_weight: factor of the first layer's values.
        learned: True if both numbers are trained, False if they stay.
    """

    def __init__(
        self,
        shape: AttentionShape,
        *,
        own_weight: float = 0.5,
        first_weight: float = 0.5,
        learned: bool = True,
    ) -> None:
        super().__init__()
        check_layers("WeightedValueResidual", shape)
        self.shape, self.weights = shape, (own_weight, first_weight)
        self.trained = nn.Parameter(torch.tensor(self.weights)) if learned and follows_first(shape) else None

    def check_first_values(self, shape: tuple[int, int]) -> None:
        check_first("WeightedValueResidual", self.shape, shape)

    def forward(
        self,
        v: Float[Tensor, "b g n e"],
        x: Float[Tensor, "b n c"],
        earlier: tuple[Float[Tensor, "b _ n _"], ...],
        inputs: Inputs,
    ) -> Float[Tensor, "b g n e"]:
        if not follows_first(self.shape) or not earlier:
            return v
        if self.trained is None:
            return self.weights[0] * v + self.weights[1] * earlier[0]
        own, first = self.trained.to(v.dtype)
        return own * v + first * earlier[0]
