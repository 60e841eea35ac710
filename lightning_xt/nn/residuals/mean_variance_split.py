import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.autocast import disable_autocast
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.residuals.base import Residual


class MeanVarianceSplit(Residual):
    """Write the mean over tokens of a sublayer's output apart from the differences between tokens, in encoders.

    Lu, 2026 (Mean-Variance Split Residuals). https://arxiv.org/abs/2605.06169
    The stream x becomes x + beta (f - mean f) + alpha (mean f - mean x), with learned alpha and beta per feature. A
    mean is over the tokens that a token may see. In a causal stack it would contain later tokens.
    In x-transformers: mv_split_residual; in decoders too there, which see the future.

    Args:
        init_alpha: start of alpha.
        init_beta: start of beta.
    """

    sees_ahead = True

    def __init__(self, shape: LayerShape, index: int, *, init_alpha: float = 0.0, init_beta: float = 0.03) -> None:
        super().__init__()
        if shape.causal:
            raise ValueError(
                "residual: MeanVarianceSplit averages over the tokens of a row, later ones too, so it serves encoders "
                "only; choose another"
            )
        self.alpha = nn.Parameter(torch.full((shape.dim,), init_alpha))
        self.beta = nn.Parameter(torch.full((shape.dim,), init_beta))

    def write_rows(
        self, stream: Float[Tensor, "b n D"], out: Float[Tensor, "b n D"], where: Where
    ) -> Float[Tensor, "b n D"]:
        return self._split(stream, out, _average(stream, where), _average(out, where))

    def write(self, stream: Float[Tensor, "b n D"], out: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        return self._split(stream, out, stream.mean(dim=1, keepdim=True), out.mean(dim=1, keepdim=True))

    def _split(self, stream: Tensor, out: Tensor, stream_mean: Tensor, out_mean: Tensor) -> Tensor:
        alpha, beta = self.alpha.to(stream.dtype), self.beta.to(stream.dtype)
        return stream + beta * (out - out_mean) + alpha * (out_mean - stream_mean)


def _average(x: Float[Tensor, "b n D"], where: Where) -> Float[Tensor, "b _ D"]:
    """Average over the tokens that each token may see: real ones, of its document and of the caller's mask."""
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    if where.query_documents is None and where.own_mask is None:
        seen = torch.ones_like(x[:, None, :, 0]) if where.valid is None else where.valid.unsqueeze(1)
    else:
        seen = where.dense().squeeze(1)
    weights = seen.to(precise.dtype)
    with disable_autocast(x):
        return ((weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)) @ precise).to(x.dtype)
