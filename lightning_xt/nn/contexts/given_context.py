from jaxtyping import Bool, Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.contexts.base import Context


class GivenContext(Context):
    """Pass on the context that the caller gives with each forward, such as an encoder's output.

    In x-transformers: cross_attend, cross_attn_dim_context.

    Args:
        dim: width of the context. None = the model's own width.
    """

    ordered = True
    needed_input = "context"

    def __init__(self, shape: LayerShape, *, dim: int | None = None) -> None:
        super().__init__()
        self.dim = shape.dim if dim is None else dim

    def forward(self, batch: int, inputs: Inputs) -> tuple[Float[Tensor, "b m c"], Bool[Tensor, "b m"] | None]:
        context = inputs.require("context", self)
        if context.shape[0] != batch or context.shape[-1] != self.dim:
            raise ValueError(
                f"context: GivenContext expects {batch} rows of vectors {self.dim} wide, got a tensor of shape "
                f"{tuple(context.shape)}"
            )
        return context, inputs.context_mask
