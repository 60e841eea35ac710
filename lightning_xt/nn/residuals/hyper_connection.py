import torch
from einops import reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.residuals.base import Residual
from lightning_xt.system.option_checks import check_option


class HyperConnection(Residual):
    """Keep several streams; each sublayer learns which mix of them to read and how to write back to each.

    Zhu et al., 2024 (dynamic hyper-connections). https://arxiv.org/abs/2409.19606
    Every weight is a learned number plus a small bounded term that depends on the token. At the start all streams are
    equal, sublayer k reads stream k % num_streams, and each stream behaves like one plain residual stream. The model's
    output is their sum.
    In x-transformers: num_residual_streams.

    Args:
        num_streams: number of streams.
    """

    def __init__(self, shape: LayerShape, index: int, *, num_streams: int = 4) -> None:
        super().__init__()
        check_option("residual: HyperConnection", "num_streams", num_streams, least=1)
        self.num_streams = num_streams
        self.gain = nn.Parameter(torch.ones(shape.dim))
        self.read_static = nn.Parameter(F.one_hot(torch.tensor(index % num_streams), num_streams).float())
        self.mix_static = nn.Parameter(torch.eye(num_streams))
        self.write_static = nn.Parameter(torch.ones(num_streams))
        self.read_dynamic = nn.Parameter(torch.zeros(shape.dim, 1))
        self.mix_dynamic = nn.Parameter(torch.zeros(shape.dim, num_streams))
        self.write_dynamic = nn.Parameter(torch.zeros(shape.dim, 1))
        self.read_scale = nn.Parameter(torch.tensor(0.01))
        self.write_scale = nn.Parameter(torch.tensor(0.01))

    def open(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n s D"]:
        return repeat(x, "b n d -> b n s d", s=self.num_streams)

    def read(self, stream: Float[Tensor, "b n s D"]) -> Float[Tensor, "b n D"]:
        dynamic = (self._normalize(stream) @ self.read_dynamic.to(stream.dtype)).tanh().squeeze(-1)
        weights = self.read_static.to(stream.dtype) + self.read_scale.to(stream.dtype) * dynamic
        return torch.einsum("bns,bnsd->bnd", weights, stream)

    def write(self, stream: Float[Tensor, "b n s D"], out: Float[Tensor, "b n D"]) -> Float[Tensor, "b n s D"]:
        normed = self._normalize(stream)
        # Row s, column t: weight of stream s in the new stream t.
        mix = (normed @ self.mix_dynamic.to(stream.dtype)).tanh() * self.read_scale.to(stream.dtype)
        mixed = torch.einsum("bnst,bnsd->bntd", self.mix_static.to(stream.dtype) + mix, stream)
        depth = (normed @ self.write_dynamic.to(stream.dtype)).tanh() * self.write_scale.to(stream.dtype)
        return mixed + (self.write_static.to(stream.dtype)[:, None] + depth) * out.unsqueeze(-2)

    def close(self, stream: Float[Tensor, "b n s D"]) -> Float[Tensor, "b n D"]:
        return reduce(stream, "b n s d -> b n d", "sum")

    def _normalize(self, stream: Float[Tensor, "b n s D"]) -> Float[Tensor, "b n s D"]:
        return F.layer_norm(stream, stream.shape[-1:], self.gain.to(stream.dtype))
