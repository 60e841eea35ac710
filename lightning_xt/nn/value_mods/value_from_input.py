import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.value_mods.base import ValueMod
from lightning_xt.nn.value_mods.gated_addition import add_gated
from lightning_xt.system.option_checks import check_option


class ValueFromInput(ValueMod):
    """Add to each value a map of the vector that the first layer read at the same token, through a gate per head.

    Of public speedruns of small language models, 2026, in place of ValueEmbedding where data repeat.
    https://github.com/qlabs-eng/slowrun
    The gate is 2 sigmoid(w x) of the token's first features, 1 at the start.

    Args:
        num_features: number of features that the gate reads; all if the stream has no more.
    """

    self_attention_only = True

    def __init__(self, shape: AttentionShape, *, num_features: int = 12) -> None:
        super().__init__()
        check_option("value_mods: ValueFromInput", "num_features", num_features, least=1)
        self.to_values = nn.Linear(shape.dim, shape.kv_heads * shape.value_dim, bias=False)
        self.to_gate = nn.Parameter(torch.zeros(min(num_features, shape.dim), shape.kv_heads))

    def forward(
        self,
        v: Float[Tensor, "b g n e"],
        x: Float[Tensor, "b n c"],
        earlier: tuple[Float[Tensor, "b _ n _"], ...],
        inputs: Inputs,
    ) -> Float[Tensor, "b g n e"]:
        return add_gated(v, self.to_values(inputs.require("embedded", self)), x, self.to_gate)
