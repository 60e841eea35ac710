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

    Args:
        bias: True to add a learned bias to each query, key and value, as GPT-2 does.
    """

    def __init__(self, shape: AttentionShape, *, bias: bool = False) -> None:
        super().__init__()
        self.heads, self.kv_heads = shape.heads, shape.kv_heads
        self.rotated_dim, self.scale = shape.dim_head, shape.dim_head**-0.5
        self.value_shape = shape.kv_heads, shape.value_dim
        q_rows, k_rows = shape.heads * shape.dim_head, shape.kv_heads * shape.dim_head
        v_rows = shape.kv_heads * shape.value_dim
        # Maps of the same input are one product. Optimizers of matrices split them.
        self.stacked_rows: dict[str, tuple[int, ...]]
        if shape.context_dim is None:
            self.to_qkv = nn.Linear(shape.dim, q_rows + k_rows + v_rows, bias=bias)
            self.stacked_rows = {"to_qkv": (q_rows, k_rows, v_rows)}
        else:
            self.to_q = nn.Linear(shape.dim, q_rows, bias=bias)
            self.to_kv = nn.Linear(shape.context_dim, k_rows + v_rows, bias=bias)
            self.stacked_rows = {"to_kv": (k_rows, v_rows)}

    def project(
        self, x: Float[Tensor, "b n D"]
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b g n d"], Float[Tensor, "b g n e"]]:
        q, k, v = self.to_qkv(x).split(self.stacked_rows["to_qkv"], dim=-1)
        return _split_heads(q, self.heads), _split_heads(k, self.kv_heads), _split_heads(v, self.kv_heads)

    def project_queries(self, x: Float[Tensor, "b i D"]) -> Float[Tensor, "b h i d"]:
        return _split_heads(self.to_q(x), self.heads)

    def project_keys_values(
        self, source: Float[Tensor, "b j c"]
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        k, v = self.to_kv(source).split(self.stacked_rows["to_kv"], dim=-1)
        return _split_heads(k, self.kv_heads), _split_heads(v, self.kv_heads)


def _split_heads(x: Float[Tensor, "b n _"], heads: int) -> Float[Tensor, "b heads n _"]:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
