import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import AttentionShape
from lightning_xt.nn.output_mods.base import OutputMod
from lightning_xt.system.option_checks import check_option


class SparseHeadGate(OutputMod):
    """Gate the output of each head by a sigmoid of the first few features of the query's token.

    Of public speedruns of small language models, 2025. https://github.com/KellerJordan/modded-nanogpt
    A gate per head as in Qiu et al., 2025, https://arxiv.org/abs/2505.06708, from few features. It is half open at the
    start, for every token.

    Args:
        num_features: number of features that the gate reads; all if the stream has no more.
    """

    def __init__(self, shape: AttentionShape, *, num_features: int = 12) -> None:
        super().__init__()
        check_option("output_mods: SparseHeadGate", "num_features", num_features, least=1)
        self.to_gate = nn.Parameter(torch.zeros(min(num_features, shape.dim), shape.heads))

    def forward(
        self, out: Float[Tensor, "b h i e"], x: Float[Tensor, "b i D"], own: Float[Tensor, "b g i e"] | None
    ) -> Float[Tensor, "b h i e"]:
        gate = (x[..., : len(self.to_gate)] @ self.to_gate.to(x.dtype)).sigmoid()
        return out * gate.mT.unsqueeze(-1)
