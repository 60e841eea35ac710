from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_projections.base import OutputProjection


class BiasedOutput(OutputProjection):
    """Map the gathered values of all heads by one linear map, and add a learned bias.

    Radford et al., 2019 (GPT-2). https://github.com/openai/gpt-2
    The map has no bias without this class, as in Vaswani et al., 2017, https://arxiv.org/abs/1706.03762.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.to_out = nn.Linear(shape.heads * shape.value_dim, shape.dim)

    def forward(
        self, joined: Float[Tensor, "b i _"], x: Float[Tensor, "b i D"], inputs: Inputs
    ) -> Float[Tensor, "b i D"]:
        return self.to_out(joined)
