from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.projections.base import Projection


class MultiHead(Projection):
    """Project hidden states to one query per head and to one key and value per group of heads.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    Fewer key/value heads than query heads: Ainslie et al., 2023 (GQA), https://arxiv.org/abs/2305.13245; a single
    one: Shazeer, 2019 (MQA), https://arxiv.org/abs/1911.02150. Query head k reads key/value head k // (h / g), as in
    Llama checkpoints.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.heads, self.kv_heads = shape.heads, shape.kv_heads
        self.rotated_dim, self.scale = shape.dim_head, shape.dim_head**-0.5
        self.value_shape = shape.kv_heads, shape.dim_head
        q_rows, kv_rows = shape.heads * shape.dim_head, shape.kv_heads * shape.dim_head
        # Maps of the same input are one product. Optimizers of matrices split them.
        self.stacked_rows: dict[str, tuple[int, ...]]
        if shape.context_dim is None:
            self.to_qkv = nn.Linear(shape.dim, q_rows + 2 * kv_rows, bias=False)
            self.stacked_rows = {"to_qkv": (q_rows, kv_rows, kv_rows)}
        else:
            self.to_q = nn.Linear(shape.dim, q_rows, bias=False)
            self.to_kv = nn.Linear(shape.context_dim, 2 * kv_rows, bias=False)
            self.stacked_rows = {"to_kv": (kv_rows, kv_rows)}

    def project(
        self, x: Float[Tensor, "b n D"]
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b g n d"], Float[Tensor, "b g n e"]]:
        heads = self.to_qkv(x).unflatten(-1, (self.heads + 2 * self.kv_heads, -1)).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        return q, k, v

    def project_queries(self, x: Float[Tensor, "b i D"]) -> Float[Tensor, "b h i d"]:
        return self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def project_keys_values(
        self, source: Float[Tensor, "b j c"]
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        k, v = self.to_kv(source).unflatten(-1, (2, self.kv_heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v
