import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.residuals.base import Residual
from lightning_xt.system.option_checks import check_option

MAIN, APART = 0.9, -8.0


class ManifoldHyperConnection(Residual):
    """Keep several streams that mix by doubly stochastic weights of each token, so that none grows or fades.

    Xie et al., 2025 (mHC). https://arxiv.org/abs/2512.24880
    A sublayer reads the streams with weights sigmoid(a), writes with 2 sigmoid(b), and mixes the streams by
    Sinkhorn(exp(c)); a, b and c are learned numbers plus a small linear map of all streams, normed. At the start that
    map is zero, all streams are equal, and each behaves like one plain residual stream. The model's output reads
    the streams as the last sublayer does: their sum, as in the first hyper-connections, would ignore its mix.
    In x-transformers: hyper_conn_sinkhorn_iters; there every stream becomes the sum of all.

    Args:
        num_streams: number of streams.
        sinkhorn_iterations: number of times that rows and columns are divided by their sums.
    """

    def __init__(self, shape: LayerShape, index: int, *, num_streams: int = 4, sinkhorn_iterations: int = 20) -> None:
        super().__init__()
        check_option("residual: ManifoldHyperConnection", "num_streams", num_streams, least=2)
        check_option("residual: ManifoldHyperConnection", "sinkhorn_iterations", sinkhorn_iterations, least=1)
        self.num_streams, self.iterations = num_streams, sinkhorn_iterations
        s = num_streams
        # The weights of a read sum to 1, most of it on one stream: otherwise equal streams would stay equal.
        read = torch.full((s,), (1 - MAIN) / (s - 1))
        read[index % s] = MAIN
        self.read_static = nn.Parameter(read.logit())
        self.write_static = nn.Parameter(torch.zeros(s))
        self.mix_static = nn.Parameter(torch.full((s, s), APART).fill_diagonal_(0.0))
        self.read_dynamic = nn.Parameter(torch.zeros(s * shape.dim, s))
        self.write_dynamic = nn.Parameter(torch.zeros(s * shape.dim, s + s * s))
        self.gains = nn.Parameter(torch.full((3,), 0.01))

    def open(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n s D"]:
        return repeat(x, "b n d -> b n s d", s=self.num_streams)

    def read(self, stream: Float[Tensor, "b n s D"]) -> Float[Tensor, "b n D"]:
        logits = self.gains[0] * _project(stream, self.read_dynamic) + self.read_static
        return (logits.sigmoid().to(stream.dtype).unsqueeze(-1) * stream).sum(dim=-2)

    def write(self, stream: Float[Tensor, "b n s D"], out: Float[Tensor, "b n D"]) -> Float[Tensor, "b n s D"]:
        s = self.num_streams
        to_write, to_mix = _project(stream, self.write_dynamic).split((s, s * s), dim=-1)
        weights = 2 * (self.gains[1] * to_write + self.write_static).sigmoid()
        # Row t, column s: weight of stream s in the new stream t.
        mix = _balance(self.gains[2] * to_mix.unflatten(-1, (s, s)) + self.mix_static, self.iterations)
        mixed = mix.to(stream.dtype) @ stream
        return torch.addcmul(mixed, weights.to(stream.dtype).unsqueeze(-1), out.unsqueeze(-2))

    def close(self, stream: Float[Tensor, "b n s D"]) -> Float[Tensor, "b n D"]:
        return self.read(stream)


def _project(stream: Float[Tensor, "b n s D"], weight: Float[Tensor, "_ w"]) -> Float[Tensor, "b n w"]:
    """Map all streams of a token, divided by their root mean square, to numbers in float32 or better."""
    flat = stream.flatten(-2)
    precise = torch.promote_types(stream.dtype, torch.float32)
    # The division after the map: the streams are several times as wide as its result.
    length = torch.linalg.vector_norm(flat, dim=-1, keepdim=True, dtype=precise)
    return (flat @ weight.to(stream.dtype)).to(precise) * (flat.shape[-1] ** 0.5 / (length + 1e-6))


def _balance(logits: Float[Tensor, "b n s _"], iterations: int) -> Float[Tensor, "b n s _"]:
    """Scale the exponentials of square matrices until rows and columns sum to 1 (Sinkhorn and Knopp, 1967)."""
    weights = logits.softmax(dim=-1)
    for _ in range(iterations - 1):
        weights = weights / weights.sum(dim=-2, keepdim=True)
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights / weights.sum(dim=-2, keepdim=True)
