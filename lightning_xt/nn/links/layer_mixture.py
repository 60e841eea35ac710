import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.links.base import Earlier, Link, sum_weighted


class LayerMixture(Link):
    """Give each sublayer a weighted sum of the inputs of all sublayers so far, by weights of each token.

    Gerasimov et al., 2025 (LIMe). https://arxiv.org/abs/2502.09245
    The paper mixes keys and values of heads by learned numbers; these weights also depend on the token, and serve
    feedforwards too. At the start only the latest counts.
    In x-transformers: integrate_layers, layer_integrate_use_softmax; weights from a softmax there.
    """

    def __init__(self, shape: LayerShape, index: int, calls: int) -> None:
        super().__init__()
        mixes = 0 < index < calls
        self.to_weights = nn.Parameter(torch.zeros(shape.dim, index + 1)) if mixes else None
        self.bias = nn.Parameter(F.one_hot(torch.tensor(index), index + 1).float()) if mixes else None

    def mix_input(self, x: Float[Tensor, "b n D"], earlier: Earlier) -> Float[Tensor, "b n D"]:
        if self.to_weights is None or self.bias is None:
            return x
        normed = F.rms_norm(x, x.shape[-1:], eps=1e-6)
        weights = normed @ self.to_weights.to(x.dtype) + self.bias.to(x.dtype)
        return sum_weighted((*earlier, x), weights)
