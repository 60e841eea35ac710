import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.contexts.base import Context
from lightning_xt.system.option_checks import check_option


class LearnedContext(Context):
    """Learn a bank of vectors that every token can read, the same for every input.

    The learned array of the Perceiver (Jaegle et al., 2021, https://arxiv.org/abs/2103.03206) in the opposite role:
    there the array reads the input, here the input reads the array.

    Args:
        num_vectors: number of vectors in the bank.
    """

    def __init__(self, shape: LayerShape, *, num_vectors: int = 16) -> None:
        super().__init__()
        check_option("context: LearnedContext", "num_vectors", num_vectors, least=1)
        self.dim = shape.dim
        self.bank = nn.Parameter(torch.randn(num_vectors, shape.dim))

    def forward(self, batch: int, inputs: Inputs) -> tuple[Float[Tensor, "b m c"], Bool[Tensor, "b m"] | None]:
        return self.bank.expand(batch, -1, -1), None
