import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.links.base import Earlier, Link, spread_over_streams


class UNetSkips(Link):
    """Merge into the stream of each sublayer of the second half the input of its mirror image in the first half.

    Bao et al., 2022 (U-ViT). https://arxiv.org/abs/2209.12152
    The stream becomes a linear map of itself and the earlier input, the last sublayer being joined to the second. At
    the start the map leaves the stream as it is. The paper has such a map for each layer of two sublayers.
    In x-transformers: unet_skips.
    """

    def __init__(self, shape: LayerShape, index: int, calls: int) -> None:
        super().__init__()
        if calls < 3:
            raise ValueError(
                f"links: UNetSkips joins two halves of a stack, but a forward calls only {calls} sublayer(s); raise "
                "depth"
            )
        self.mirror = calls - index
        joined = self.mirror < index < calls
        start = torch.cat((torch.eye(shape.dim), torch.zeros(shape.dim, shape.dim)), dim=1)
        self.weight = nn.Parameter(start) if joined else None

    def extend_stream(self, stream: Float[Tensor, "b n *s D"], earlier: Earlier) -> Float[Tensor, "b n *s D"]:
        if self.weight is None:
            return stream
        own, skip = self.weight.chunk(2, dim=1)
        return F.linear(stream, own) + spread_over_streams(F.linear(earlier[self.mirror], skip), stream)
