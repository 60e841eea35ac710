import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.links.base import Earlier, Link


class Reinjection(Link):
    """Add a linear map of the embeddings to the input of each sublayer.

    Bai, Kolter and Koltun, 2019 (deep equilibrium models). https://arxiv.org/abs/1909.01377
    Each call has a map, zero at the start; the paper's are added inside attention.
    In x-transformers: reinject_input, learned_reinject_input_gate; one map for all sublayers there.

    Args:
        gated: True to multiply the map by a sigmoid that each token computes from its embedding.
    """

    gate_maps = ("to_gate",)

    def __init__(self, shape: LayerShape, index: int, calls: int, *, gated: bool = False) -> None:
        super().__init__()
        injects = 0 < index < calls
        self.weight = nn.Parameter(torch.zeros(shape.dim, shape.dim)) if injects else None
        self.to_gate = nn.Linear(shape.dim, 1, bias=False) if injects and gated else None

    def mix_input(self, x: Float[Tensor, "b n D"], earlier: Earlier) -> Float[Tensor, "b n D"]:
        if self.weight is None:
            return x
        injected = earlier[0] @ self.weight.mT
        return x + (injected if self.to_gate is None else self.to_gate(earlier[0]).sigmoid() * injected)
