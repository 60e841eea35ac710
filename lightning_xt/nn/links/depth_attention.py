from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.links.base import Earlier, Link, sum_weighted
from lightning_xt.system.option_checks import check_option


class DepthAttention(Link):
    """Let each sublayer, and the output, attend over the embeddings and the outputs of all earlier sublayers.

    Kimi Team, 2026 (Attention Residuals). https://arxiv.org/abs/2603.15031
    It replaces their plain sum. A learned query of each call meets the normed outputs as keys, and the outputs are the
    values. The queries are zero at the start, which gives the mean. An output is the difference between the inputs that
    two sublayers read from the stream.
    In x-transformers: attn_aggregated_residuals; over sums rather than outputs, with queries of each token there.

    Args:
        block_size: number of sublayers whose outputs are summed before attention; the paper has about eight blocks.
    """

    query_vectors = ("query",)

    def __init__(self, shape: LayerShape, index: int, calls: int, *, block_size: int = 1) -> None:
        super().__init__()
        check_option("links: DepthAttention", "block_size", block_size, least=1)
        self.block_size = block_size
        self.query = nn.Parameter(torch.zeros(shape.dim)) if index else None

    def mix_input(self, x: Float[Tensor, "b n D"], earlier: Earlier) -> Float[Tensor, "b n D"]:
        if self.query is None:
            return x
        # The stream at the boundaries of blocks; the last block may be incomplete.
        sums = (*earlier[:: self.block_size], x)
        values = (sums[0], *(after - before for before, after in pairwise(sums)))
        logits = [F.rms_norm(each, each.shape[-1:], eps=1e-6) @ self.query.to(x.dtype) for each in values]
        weights = torch.stack(logits, dim=-1).softmax(dim=-1, dtype=torch.promote_types(x.dtype, torch.float32))
        return sum_weighted(values, weights.to(x.dtype))
