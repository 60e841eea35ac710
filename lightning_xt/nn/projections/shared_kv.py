from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.projections.base import Projection
from lightning_xt.nn.projections.multi_head import MultiHead
from lightning_xt.system.option_checks import check_option


class SharedKV(Projection):
    """Project only queries in the upper layers, which read the keys and values of one layer: the only ones cached.

    Sun et al., 2024 (you only cache once). https://arxiv.org/abs/2405.05254
    Layers below the shared one keep their own keys and values. The paper gives those a window or a recurrence.

    Args:
        shared_layer: layer, from 0, whose keys and values all later ones read. None = the first of the upper half.
    """

    self_attention_only: ClassVar = True

    def __init__(self, shape: AttentionShape, *, shared_layer: int | None = None) -> None:
        super().__init__()
        check_option("projection: SharedKV", "shared_layer", shared_layer, least=0, below=shape.depth)
        if shape.context_dim is not None:
            raise ValueError(
                "projection: SharedKV serves self-attention only, but this is cross-attention; omit it there"
            )
        upper = shape.layer >= (shape.depth // 2 if shared_layer is None else shared_layer)
        # The first of the upper layers that has attention: a layout, or a Cycle, may have some without.
        self.shares_keys = upper and shape.owns("SharedKV")
        self.reads_shared_keys = upper and not self.shares_keys
        self.heads, self.rotated_dim, self.scale = shape.heads, shape.dim_head, shape.dim_head**-0.5
        if self.reads_shared_keys:
            self.value_shape = None
            self.to_q = nn.Linear(shape.dim, shape.heads * shape.dim_head, bias=False)
        else:
            self.value_shape = shape.kv_heads, shape.value_dim
            self.plain = MultiHead(shape)

    def project(
        self, x: Float[Tensor, "b n D"]
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b g n d"], Float[Tensor, "b g n e"]]:
        return self.plain.project(x)

    def project_queries(self, x: Float[Tensor, "b i D"]) -> Float[Tensor, "b h i d"]:
        return self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def project_keys_values(
        self, source: Float[Tensor, "b j c"]
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        return self.plain.project_keys_values(source)
