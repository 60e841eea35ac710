"""Factors of vectors from the condition of a forward, one vector a row or a token."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.inputs import Inputs, ReadsInput
from lightning_xt.core.shapes import LayerShape
from lightning_xt.system.option_checks import check_option


class ReadsCondition(ReadsInput, nn.Module):
    """Part that reads the condition of a forward, directly or through an MLP with one SiLU layer."""

    needed_input = "condition"

    def __init__(self, name: str, shape: LayerShape, condition_dim: int, mlp_expansion: float | None) -> None:
        super().__init__()
        check_option(name, "condition_dim", condition_dim, least=1)
        check_option(name, "mlp_expansion", mlp_expansion, above=0)
        self.name, self.condition_dim, self.token_axis = name, condition_dim, shape.token_axis
        self.features = condition_dim if mlp_expansion is None else max(1, round(mlp_expansion * condition_dim))
        self.to_hidden = None if mlp_expansion is None else nn.Linear(condition_dim, self.features)

    def read_condition(self, x: Float[Tensor, "b *_ D"], inputs: Inputs) -> Float[Tensor, "b *_ w"]:
        """Return the condition's features, with as many axes as the vectors that they change."""
        condition = inputs.require("condition", self).to(x.dtype)
        if condition.shape[-1] != self.condition_dim:
            raise ValueError(
                f"{self.name} has condition_dim {self.condition_dim}, but the condition is "
                f"{condition.shape[-1]} wide; give both the same width"
            )
        shape = [1] * x.dim()
        shape[0], shape[-1] = condition.shape[0], self.features
        if condition.dim() == 3:
            shape[self.token_axis] = condition.shape[1]
            if condition.shape[1] != x.shape[self.token_axis]:
                raise ValueError(
                    f"{self.name} has a condition for {condition.shape[1]} tokens, but {x.shape[self.token_axis]} "
                    "vectors to change; give one condition a row"
                )
        if self.to_hidden is not None:
            condition = F.silu(self.to_hidden(condition))
        return condition.reshape(shape)
