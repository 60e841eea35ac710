import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.projections.base import Kernel, Projection
from lightning_xt.nn.projections.multi_head import MultiHead
from lightning_xt.system.option_checks import check_option


class Differential(Projection):
    """Subtract the weights of every second head, times a learned number, from those of the head before.

    Ye et al., 2024 (differential transformer). https://arxiv.org/abs/2410.05258
    Two heads make one differential head, whose values are twice as wide; the second weighs the same values with other
    queries and keys. Each differential head is normed and scaled by 1 - lambda_init. The number is
    exp(q1 . k1) - exp(q2 . k2) + lambda_init with learned vectors. The heads are those of the plain attention, of
    which the paper counts half.

    Args:
        lambda_init: start of the number, from 0 to below 1. None = 0.8 - 0.6 exp(-0.3 layer), the layers from 0.
    """

    signed = True

    def __init__(self, shape: AttentionShape, *, lambda_init: float | None = None) -> None:
        super().__init__()
        if shape.heads % 2 or shape.kv_heads % 2:
            raise ValueError(
                f"projection: Differential makes pairs of heads, so heads ({shape.heads}) and kv_heads "
                f"({shape.kv_heads}) must be even"
            )
        check_option("projection: Differential", "lambda_init", lambda_init, least=0, below=1)
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * shape.layer) if lambda_init is None else lambda_init
        self.plain = MultiHead(shape)
        self.rotated_dim, self.scale = self.plain.rotated_dim, self.plain.scale
        self.value_shape = self.plain.value_shape
        self.lambdas = nn.Parameter(0.1 * torch.randn(2, 2, shape.dim_head))
        self.gain = nn.Parameter(torch.ones(2 * shape.value_dim))

    def project(
        self, x: Float[Tensor, "b n D"]
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b g n d"], Float[Tensor, "b g n e"]]:
        return self.plain.project(x)

    def project_queries(self, x: Float[Tensor, "b i D"]) -> Float[Tensor, "b h i d"]:
        return self.plain.project_queries(x)

    def project_keys_values(
        self, source: Float[Tensor, "b j c"]
    ) -> tuple[Float[Tensor, "b g j d"], Float[Tensor, "b g j e"]]:
        return self.plain.project_keys_values(source)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, kernel: Kernel) -> Float[Tensor, "b h i e"]:
        # The halves of the values are gathered in two calls: fused kernels want values as wide as the keys.
        halves = [self._gather(q, k, v[:, half::2], kernel) for half in range(2)]
        wide = torch.cat(halves, dim=-1)
        wide = F.rms_norm(wide, wide.shape[-1:], self.gain.to(wide.dtype), 1e-5) * (1 - self.lambda_init)
        return wide.unflatten(-1, (2, -1)).transpose(2, 3).flatten(1, 2)

    def _gather(
        self, q: Tensor, k: Tensor, half: Float[Tensor, "b pairs j e"], kernel: Kernel
    ) -> Float[Tensor, "b _ i e"]:
        """Gather one half of the values, by the first weights of each pair minus the second."""
        out = kernel(q, k, half.repeat_interleave(2, dim=1))
        by_query, by_key = self.lambdas.to(torch.promote_types(q.dtype, torch.float32)).unbind(dim=1)
        first, second = (by_query * by_key).sum(dim=-1).exp()
        return out[:, ::2] - (first - second + self.lambda_init).to(out.dtype) * out[:, 1::2]
