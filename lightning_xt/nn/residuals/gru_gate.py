import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.residuals.base import Residual


class GRUGate(Residual):
    """Merge the sublayer's output into the stream through the gates of a recurrent unit.

    Parisotto et al., 2019 (GTrXL). https://arxiv.org/abs/1910.06764
    In x-transformers: gate_residual; its gates start half open.

    Args:
        bias_init: start of the update gate's bias; the larger, the closer a fresh layer is to the identity.
    """

    def __init__(self, shape: LayerShape, index: int, *, bias_init: float = 2.0) -> None:
        super().__init__()
        self.from_out = nn.Linear(shape.dim, 3 * shape.dim, bias=False)
        self.from_stream = nn.Linear(shape.dim, 2 * shape.dim, bias=False)
        self.from_reset = nn.Linear(shape.dim, shape.dim, bias=False)
        self.update_bias = nn.Parameter(torch.full((shape.dim,), bias_init))

    def write(self, stream: Float[Tensor, "b n D"], out: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        # Gates in float32, because otherwise each layer rounds the whole stream several times.
        precise = torch.promote_types(stream.dtype, torch.float32)
        reset_y, update_y, candidate_y = self.from_out(out).to(precise).chunk(3, dim=-1)
        reset_x, update_x = self.from_stream(stream).to(precise).chunk(2, dim=-1)
        update = (update_y + update_x - self.update_bias).sigmoid()
        kept = ((reset_y + reset_x).sigmoid() * stream).to(stream.dtype)
        candidate = (candidate_y + self.from_reset(kept)).tanh()
        return (stream + update * (candidate - stream)).to(stream.dtype)
