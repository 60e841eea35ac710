from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.adapted_matrix import get_matrix
from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.projections.base import Kernel, Projection
from lightning_xt.system.option_checks import check_option


class Latent(Projection):
    """Compress keys and values of all heads into one small latent vector per token, the only one that is cached.

    DeepSeek-AI, 2024 (multi-head latent attention of DeepSeek-V2). https://arxiv.org/abs/2405.04434
    The rotated part of the key is decoupled: projected from the hidden state and shared by all heads. While
    decoding, the expansion is absorbed into queries and outputs, so that latents are never expanded to keys and values.
    The heads are `dim_head` wide without their rotated features.
    In x-transformers: attn_use_latent_q, attn_dim_latent_q, attn_use_latent_kv, attn_dim_latent_kv,
    attn_latent_rope_subheads; without the norms of the latent vectors.

    Args:
        latent_dim: width of the key/value latent. None = half the model's width.
        query_latent_dim: width of a latent of the queries. None = queries directly from the hidden state.
        rotary_dim: number of rotated features, added to each head. None = half of dim_head, rounded up to even.
    """

    per_head = False

    def __init__(
        self,
        shape: AttentionShape,
        *,
        latent_dim: int | None = None,
        query_latent_dim: int | None = None,
        rotary_dim: int | None = None,
    ) -> None:
        super().__init__()
        if shape.kv_heads != shape.heads:
            raise ValueError(
                f"projection: Latent makes keys and values for every head, so kv_heads ({shape.kv_heads}) must be "
                f"heads ({shape.heads}) or null"
            )
        for name, width in (
            ("latent_dim", latent_dim),
            ("query_latent_dim", query_latent_dim),
            ("rotary_dim", rotary_dim),
        ):
            check_option("projection: Latent", name, width, least=1)
        self.heads, self.dim_head = shape.heads, shape.dim_head
        self.latent_dim = max(1, shape.dim // 2) if latent_dim is None else latent_dim
        self.rotated_dim = 2 * -(-shape.dim_head // 4) if rotary_dim is None else rotary_dim
        self.value_shape = 1, self.latent_dim
        self.scale = (shape.dim_head + self.rotated_dim) ** -0.5
        source_dim = shape.dim if shape.context_dim is None else shape.context_dim
        self.to_query_latent = nn.Identity() if query_latent_dim is None else _Compress(shape.dim, query_latent_dim)
        self.to_q = nn.Linear(
            query_latent_dim or shape.dim, self.heads * (self.dim_head + self.rotated_dim), bias=False
        )
        self.to_latent = _Compress(source_dim, self.latent_dim)
        self.to_rotated_key = nn.Linear(source_dim, self.rotated_dim, bias=False)
        self.to_keys = nn.Linear(self.latent_dim, self.heads * self.dim_head, bias=False)
        self.to_values = nn.Linear(self.latent_dim, self.heads * shape.value_dim, bias=False)

    def project_queries(self, x: Float[Tensor, "b i D"]) -> Float[Tensor, "b h i d"]:
        return rearrange(self.to_q(self.to_query_latent(x)), "b i (h d) -> b h i d", h=self.heads)

    def project_keys_values(
        self, source: Float[Tensor, "b j c"]
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        latent = self.to_latent(source)[:, None]
        return torch.cat((latent, self.to_rotated_key(source)[:, None]), dim=-1), latent

    def rotate(self, x: Float[Tensor, "b h n d"], turn: Callable[[Tensor], Tensor]) -> Float[Tensor, "b h n d"]:
        still, turned = x.split((x.shape[-1] - self.rotated_dim, self.rotated_dim), dim=-1)
        return torch.cat((still, turn(turned)), dim=-1)

    def append_to_cache(
        self, k: Float[Tensor, "b g i d"], v: Float[Tensor, "b g i e"], cache: CallCache, window: int | None
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        k = cache.append("latents", k, window=window)
        return k, k[..., : self.latent_dim]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Float[Tensor, "b h i e"]:
        # An exported program takes one of the two ways for all numbers of queries.
        if torch.compiler.is_exporting() or q.shape[-2] < k.shape[-2]:
            to_keys = rearrange(get_matrix(self.to_keys).to(q.dtype), "(h d) l -> h d l", h=self.heads)
            to_values = rearrange(get_matrix(self.to_values).to(q.dtype), "(h e) l -> h l e", h=self.heads)
            still, turned = q.split((self.dim_head, self.rotated_dim), dim=-1)
            return kernel(torch.cat((still @ to_keys, turned), dim=-1), k, v) @ to_values
        turned = k[..., self.latent_dim :].expand(-1, self.heads, -1, -1)
        still = rearrange(self.to_keys(v), "b 1 j (h d) -> b h j d", h=self.heads)
        values = rearrange(self.to_values(v), "b 1 j (h e) -> b h j e", h=self.heads)
        return kernel(q, torch.cat((still, turned), dim=-1), values)


class _Compress(nn.Module):
    """Linear map to a latent, divided by its root mean square."""

    def __init__(self, dim: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, latent_dim, bias=False)
        self.gain = nn.Parameter(torch.ones(latent_dim))

    def forward(self, x: Tensor) -> Tensor:
        latent = self.linear(x)
        return F.rms_norm(latent, latent.shape[-1:], self.gain.to(latent.dtype), 1e-6)
