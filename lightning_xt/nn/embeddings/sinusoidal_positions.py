import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.float32_constants import KeepsConstants
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.embeddings.base import Embedding
from lightning_xt.system.option_checks import check_option


class SinusoidalPositions(KeepsConstants, Embedding):
    """Add sines and cosines of the position, each pair of features at its own frequency.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
    With a learned scale, started at dim^-1/2: Hua et al., 2022, https://arxiv.org/abs/2202.10447. Token vectors start
    small here, so an unscaled sum would begin with positions alone. All sines come before all cosines.
    In x-transformers: scaled_sinu_pos_emb; wrong for prompts of different lengths.

    Args:
        base: pair k oscillates by base^(-2k / dim) per token.
        learned_scale: True to learn the scale of the sum, False for a scale of 1.
    """

    def __init__(self, shape: LayerShape, *, base: float = 10_000.0, learned_scale: bool = True) -> None:
        super().__init__()
        check_option("embeddings: SinusoidalPositions", "base", base, above=0)
        self.frequencies: Tensor
        even = torch.arange(0, shape.dim, 2, dtype=torch.float64, device="cpu")
        self.register_constant("frequencies", (base ** -(even / shape.dim)).tolist())
        self.scale = nn.Parameter(torch.tensor(shape.dim**-0.5)) if learned_scale else None

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, cache: CallCache | None = None
    ) -> Float[Tensor, "b n D"]:
        precise = torch.promote_types(x.dtype, torch.float32)
        angles = where.queries[..., None].to(precise) * self.frequencies
        waves = torch.cat((angles.sin(), angles.cos()), dim=-1)[..., : x.shape[-1]]
        return x + (waves if self.scale is None else self.scale.to(precise) * waves).to(x.dtype)
