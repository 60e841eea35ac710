from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.projections.base import Projection


class MultiHead(Projection):
    """Projects hidden states to one query per head and to one key and value per group of heads.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    Fewer key/value heads than query heads: Ainslie et al., 2023 (GQA), https://arxiv.org/abs/2305.13245; a single
    one: Shazeer, 2019 (MQA), https://arxiv.org/abs/1911.02150. Query head k reads key/value head k // (h / g), as in
    Llama checkpoints.

    Args:
        shape: sizes, given by the attention layer.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.heads, self.kv_heads = shape.heads, shape.kv_heads
        self.rotated_dim, self.scale = shape.dim_head, shape.dim_head**-0.5
        source_dim = shape.dim if shape.context_dim is None else shape.context_dim
        self.to_q = nn.Linear(shape.dim, shape.heads * shape.dim_head, bias=False)
        self.to_kv = nn.Linear(source_dim, 2 * shape.kv_heads * shape.dim_head, bias=False)
        # Two maps in one weight, which optimizers of matrices take apart.
        self.stacked_rows = {"to_kv": (shape.kv_heads * shape.dim_head,) * 2}

    def queries(self, x: Float[Tensor, "b i D"]) -> Float[Tensor, "b h i d"]:
        return self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, source: Float[Tensor, "b j c"]) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        k, v = self.to_kv(source).unflatten(-1, (2, self.kv_heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v
