from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.norms.layer_norm import LayerNorm
from lightning_xt.nn.output_projections.base import OutputProjection
from lightning_xt.system.option_checks import check_slots


class NormedOutput(OutputProjection):
    """Norm the gathered values of all heads together before the linear map (sub-layer norm).

    Wang et al., 2022 (Magneto). https://arxiv.org/abs/2210.06423
    The paper norms the hidden features of the feedforward too, as `hidden_norm` does, and starts weights smaller.

    Args:
        norm: norm of the gathered values.
    """

    @check_slots
    def __init__(self, shape: AttentionShape, *, norm: NormFactory = LayerNorm) -> None:
        super().__init__()
        width = shape.heads * shape.value_dim
        self.norm = norm(shape.resize_tokens(width))
        self.to_out = nn.Linear(width, shape.dim, bias=False)

    def forward(
        self, joined: Float[Tensor, "b i _"], x: Float[Tensor, "b i D"], inputs: Inputs
    ) -> Float[Tensor, "b i D"]:
        return self.to_out(self.norm(joined, inputs).to(joined.dtype))
