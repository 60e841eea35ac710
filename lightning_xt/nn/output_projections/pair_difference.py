from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_projections.base import OutputProjection


class PairDifference(OutputProjection):
    """Subtract what every second head gathered, times a gate of the token, from the head before, and map the rest.

    Ye et al., 2026 (differential transformer V2). https://huggingface.co/blog/microsoft/diff-attn-v2
    There a layer has twice as many query heads as a plain one, and the two heads of a pair share keys and values:
    `heads` is twice `kv_heads`, or a larger even multiple. The first version is the projection Differential.
    """

    gate_maps = ("to_gate",)

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        if shape.heads % 2:
            raise ValueError(
                f"output_projection: PairDifference makes pairs of heads, so heads ({shape.heads}) must be even"
            )
        self.pairs = shape.heads // 2
        self.to_gate = nn.Linear(shape.dim, self.pairs, bias=False)
        self.to_out = nn.Linear(self.pairs * shape.value_dim, shape.dim, bias=False)

    def forward(
        self, joined: Float[Tensor, "b i _"], x: Float[Tensor, "b i D"], inputs: Inputs
    ) -> Float[Tensor, "b i D"]:
        first, second = joined.unflatten(-1, (self.pairs, 2, -1)).unbind(-2)
        gate = self.to_gate(x).sigmoid()[..., None]
        return self.to_out((first - gate * second).flatten(2))
