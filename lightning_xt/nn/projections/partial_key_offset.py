import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.previous_tokens import get_previous
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.projections.base import ProjectionFactory
from lightning_xt.nn.projections.multi_head import MultiHead
from lightning_xt.nn.projections.neighbour_mixing import NeighbourMixing
from lightning_xt.system.option_checks import check_option, check_slots


class PartialKeyOffset(NeighbourMixing):
    """Take the last features of each key from the token before, so that one layer finds what followed a token.

    Larry Dial, 2025. https://github.com/KellerJordan/modded-nanogpt/pull/169
    These should be the features that positions do not rotate: with `offset_dim` d of a head, give Rotary a
    `rotary_dim` of the rest. At the first token of a document they are zero, where the source keeps its own.

    Args:
        offset_dim: number of features from the token before, per head. None = half of them.
        projection: makes queries, keys and values.
    """

    @check_slots
    def __init__(
        self, shape: AttentionShape, *, offset_dim: int | None = None, projection: ProjectionFactory = MultiHead
    ) -> None:
        super().__init__(shape, projection)
        offset_dim = max(1, shape.dim_head // 2) if offset_dim is None else offset_dim
        check_option("projection: PartialKeyOffset", "offset_dim", offset_dim, least=1, most=shape.dim_head)
        self.offset_dim = offset_dim

    def mix(
        self, k: Float[Tensor, "b g n d"], v: Float[Tensor, "b g n e"], where: Where, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b g n d"], Float[Tensor, "b g n e"]]:
        own, still = k.split((k.shape[-1] - self.offset_dim, self.offset_dim), dim=-1)
        (before,) = get_previous(still, where, cache, "keys_before")
        return torch.cat((own, before), dim=-1), v
