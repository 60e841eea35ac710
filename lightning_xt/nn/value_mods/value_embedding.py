import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.value_mods.base import ValueMod
from lightning_xt.nn.value_mods.gated_addition import add_gated
from lightning_xt.system.option_checks import check_option


class ValueEmbedding(ValueMod):
    """Add to each value a vector of its token from a table of the layer, through a gate per head.

    Of public speedruns of small language models, 2024. https://github.com/KellerJordan/modded-nanogpt
    The gate is 2 sigmoid(w x) of the token's first features, 1 at the start. The table has a row for each token of the
    vocabulary.

    Args:
        num_features: number of features that the gate reads; all if the stream has no more.
    """

    self_attention_only = True
    reads_tokens = True

    def __init__(self, shape: AttentionShape, *, num_features: int = 12) -> None:
        super().__init__()
        check_option("value_mods: ValueEmbedding", "num_features", num_features, least=1)
        self.table = nn.Embedding(shape.vocab_size, shape.kv_heads * shape.value_dim)
        self.to_gate = nn.Parameter(torch.zeros(min(num_features, shape.dim), shape.kv_heads))

    def forward(
        self,
        v: Float[Tensor, "b g n e"],
        x: Float[Tensor, "b n c"],
        earlier: tuple[Float[Tensor, "b _ n _"], ...],
        inputs: Inputs,
    ) -> Float[Tensor, "b g n e"]:
        return add_gated(v, self.table(inputs.require("tokens", self)), x, self.to_gate)
