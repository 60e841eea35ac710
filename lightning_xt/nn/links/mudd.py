import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.links.base import Earlier, Link, spread_over_streams, sum_weighted


class MUDD(Link):
    """Sum the inputs of all earlier sublayers into the stream, and apart from that into the input of attention.

    Xiao et al., 2025 (MUDDFormer). https://arxiv.org/abs/2502.12170
    Each token computes the weights: learned numbers, at the start 1 for the latest and 0 for the others, plus an MLP of
    its normed vector, zero at the start. The paper sums inputs of layers, and separately for queries, keys and values;
    here one sum serves all three, which includes the stream as already changed.
    """

    def __init__(self, shape: LayerShape, index: int, calls: int) -> None:
        super().__init__()
        attends = 0 < index < calls and shape.kind == "attention"
        self.to_stream = _DepthWeights(shape.dim, index + 1) if attends or index == calls else None
        self.to_input = _DepthWeights(shape.dim, index + 1) if attends else None

    def extend_stream(self, stream: Float[Tensor, "b n *s D"], earlier: Earlier) -> Float[Tensor, "b n *s D"]:
        if self.to_stream is None:
            return stream
        weights = self.to_stream(stream if stream.dim() == 3 else stream.mean(dim=-2))
        summed = sum_weighted(earlier, weights[..., :-1])
        return spread_over_streams(weights[..., -1:], stream) * stream + spread_over_streams(summed, stream)

    def mix_input(self, x: Float[Tensor, "b n D"], earlier: Earlier) -> Float[Tensor, "b n D"]:
        return x if self.to_input is None else sum_weighted((*earlier, x), self.to_input(x))


class _DepthWeights(nn.Module):
    """Weights of `count` vectors of a token, the last of which is its latest."""

    gate_maps = ("to_hidden",)

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.to_hidden = nn.Linear(dim, count, bias=False)
        self.from_hidden = nn.Parameter(torch.zeros(count, count))
        self.static = nn.Parameter(F.one_hot(torch.tensor(count - 1), count).float())

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n _"]:
        hidden = F.gelu(self.to_hidden(F.rms_norm(x, x.shape[-1:], eps=1e-6)))
        return (hidden @ self.from_hidden.to(hidden.dtype) + self.static.to(hidden.dtype)).to(x.dtype)
