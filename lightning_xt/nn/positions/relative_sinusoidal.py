import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.positions.base import Position
from lightning_xt.system.option_checks import check_option


class RelativeSinusoidal(Position):
    """Score each key by its distance too: by a linear map of the distance's sines and cosines that the query meets.

    Dai et al., 2019 (Transformer-XL). https://arxiv.org/abs/1901.02860
    The score of query i and key j is (q_i + u) k_j + (q_i + v) W r, with r the sinusoids of i - j. The sine of a
    difference is a product of sinusoids of i and of j, so that they are further features of queries and keys, and any
    kernel can run. u and v belong to a layer here; the paper's code shares them between layers.

    Args:
        num_features: number of sines and cosines, even; as many as the stream is wide in the paper, which makes a
            head of keys wider by as many. None = the stream's width, rounded down to even.
        base: pair k has the angle base^(-2k / num_features) per token.
    """

    rotates_alike = False

    def __init__(self, shape: AttentionShape, *, num_features: int | None = None, base: float = 10_000.0) -> None:
        super().__init__()
        num_features = max(2, shape.dim - shape.dim % 2) if num_features is None else num_features
        check_option("position: RelativeSinusoidal", "num_features", num_features, least=2)
        check_option("position: RelativeSinusoidal", "base", base, above=0)
        if num_features % 2:
            raise ValueError(f"position: RelativeSinusoidal has num_features {num_features}, which must be even")
        self.frequencies: Tensor
        part = torch.arange(0, num_features, 2, dtype=torch.float64, device="cpu") / num_features
        self.register_constant("frequencies", (base**-part).tolist())
        self.content_bias = nn.Parameter(torch.zeros(shape.heads, 1, shape.dim_head))
        self.distance_bias = nn.Parameter(torch.zeros(shape.heads, 1, shape.dim_head))
        self.to_distance = nn.Parameter(torch.randn(shape.heads, shape.dim_head, num_features) * num_features**-0.5)

    def rotate_queries(self, q: Float[Tensor, "b h i d"], at: Int[Tensor, "#b i"]) -> Float[Tensor, "b h i _"]:
        cosines, sines = self._compute_sinusoids(at, q)
        met = (q + self.distance_bias.to(q.dtype)) @ self.to_distance.to(q.dtype)
        by_sine, by_cosine = met.to(cosines.dtype).chunk(2, dim=-1)
        turned = (by_sine * sines + by_cosine * cosines, by_cosine * sines - by_sine * cosines)
        return torch.cat((q + self.content_bias.to(q.dtype), *(each.to(q.dtype) for each in turned)), dim=-1)

    def rotate_keys(self, k: Float[Tensor, "b g j d"], at: Int[Tensor, "#b j"]) -> Float[Tensor, "b g j _"]:
        sinusoids = torch.cat(self._compute_sinusoids(at, k), dim=-1).to(k.dtype)
        return torch.cat((k, sinusoids.expand(*k.shape[:3], -1)), dim=-1)

    def _compute_sinusoids(self, at: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the cosines and sines of positions, in float32 or better."""
        angles = at[:, None, :, None].to(torch.promote_types(x.dtype, torch.float32)) * self.frequencies
        return angles.cos(), angles.sin()
