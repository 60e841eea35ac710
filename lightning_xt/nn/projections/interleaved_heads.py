import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.projections.base import Projection
from lightning_xt.nn.projections.multi_head import MultiHead


class InterleavedHeads(Projection):
    """Mix the queries, the keys and the values of all heads by a learned matrix each; the start is the identity.

    Duvvuri et al., 2026 (interleaved head attention). https://arxiv.org/abs/2602.21371
    The paper makes several mixed heads of each head and interleaves them along the sequence; here it is one of each,
    so that the sequence keeps its length and attention its kernels.
    """

    def __init__(self, shape: AttentionShape) -> None:
        super().__init__()
        self.unmixed = MultiHead(shape)
        self.rotated_dim, self.scale = self.unmixed.rotated_dim, self.unmixed.scale
        self.value_shape = self.unmixed.value_shape
        self.query_mix = nn.Parameter(torch.eye(shape.heads))
        self.key_mix = nn.Parameter(torch.eye(shape.kv_heads))
        self.value_mix = nn.Parameter(torch.eye(shape.kv_heads))

    def project(
        self, x: Float[Tensor, "b n D"]
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b g n d"], Float[Tensor, "b g n e"]]:
        q, k, v = self.unmixed.project(x)
        return _mix(q, self.query_mix), _mix(k, self.key_mix), _mix(v, self.value_mix)

    def project_queries(self, x: Float[Tensor, "b i D"]) -> Float[Tensor, "b h i d"]:
        return _mix(self.unmixed.project_queries(x), self.query_mix)

    def project_keys_values(
        self, source: Float[Tensor, "b j c"]
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        k, v = self.unmixed.project_keys_values(source)
        return _mix(k, self.key_mix), _mix(v, self.value_mix)


def _mix(x: Float[Tensor, "b heads n _"], mix: Float[Tensor, "heads heads"]) -> Float[Tensor, "b heads n _"]:
    """Mix vectors from heads (rows of the matrix) to heads (columns)."""
    return torch.einsum("bhnd,hk->bknd", x, mix.to(x.dtype))
