from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_projections.base import OutputProjection


class AttentionOnAttention(OutputProjection):
    """Map the gathered values and the input of the attention together, and gate the result by a second such map.

    Huang et al., 2019. https://arxiv.org/abs/1908.06954
    The paper's query is the input of the attention here, before its projection.
    In x-transformers: attn_on_attn; the gate there reads the gathered values only.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        # Information and gate, each from both sources. Optimizers of matrices split them.
        self.from_values = nn.Linear(shape.heads * shape.value_dim, 2 * shape.dim)
        self.from_input = nn.Linear(shape.dim, 2 * shape.dim, bias=False)
        self.stacked_rows = {"from_values": (shape.dim, shape.dim), "from_input": (shape.dim, shape.dim)}
        self.output_maps = ("from_values", "from_input")

    def forward(
        self, joined: Float[Tensor, "b i _"], x: Float[Tensor, "b i D"], inputs: Inputs
    ) -> Float[Tensor, "b i D"]:
        information, gate = (self.from_values(joined) + self.from_input(x)).chunk(2, dim=-1)
        return information * gate.sigmoid()
