"""Linear layer for decoding, with the weights as trained."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lightning_xt.generation.models.packed_products import fits_packed, multiply_packed, pack_matrix
from lightning_xt.generation.models.vector_products import is_one_vector, multiply_by_rows


class RowLinear(nn.Module):
    """Linear layer, made from another, with a packed copy of its matrix for decoding on a CPU.

    A compiled step computes the product with one vector row by row. The weights may not change afterwards.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.packed: Tensor | None
        self.register_buffer("packed", pack_matrix(linear.weight), persistent=False)

    def forward(self, x: Float[Tensor, "*b in"]) -> Float[Tensor, "*b out"]:
        if is_one_vector(x):
            out = multiply_by_rows(self.weight, x).to(x.dtype)
            return out if self.bias is None else out + self.bias
        if self.packed is None or not fits_packed(x, self.weight):
            return functional.linear(x, self.weight, self.bias)
        product: Tensor = multiply_packed(x, self.packed, self.bias)
        return product
