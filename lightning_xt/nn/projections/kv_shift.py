import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.previous_tokens import get_previous
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.projections.base import ProjectionFactory
from lightning_xt.nn.projections.multi_head import MultiHead
from lightning_xt.nn.projections.neighbour_mixing import NeighbourMixing
from lightning_xt.system.option_checks import check_slots


class KVShift(NeighbourMixing):
    """Mix each key and value with that of the token before, by two learned weights per key head.

    Xu et al., 2024. https://arxiv.org/abs/2411.19574
    The weights of a head start at u and 1 - u, with u between 0 and 1. The first token of a document has no token
    before it. In cross-attention the vectors of the context are the tokens.

    Args:
        projection: makes queries, keys and values.
    """

    @check_slots
    def __init__(self, shape: AttentionShape, *, projection: ProjectionFactory = MultiHead) -> None:
        super().__init__(shape, projection)
        own = torch.rand(2, shape.kv_heads, 1, 1)
        self.key_weights = nn.Parameter(torch.stack((own[0], 1 - own[0])))
        self.value_weights = nn.Parameter(torch.stack((own[1], 1 - own[1])))

    def mix(
        self, k: Float[Tensor, "b g n d"], v: Float[Tensor, "b g n e"], where: Where, cache: CallCache | None
    ) -> tuple[Float[Tensor, "b g n d"], Float[Tensor, "b g n e"]]:
        (k_before,), (v_before,) = (
            get_previous(k, where, cache, "keys_before"),
            get_previous(v, where, cache, "values_before"),
        )
        return _mix(k, k_before, self.key_weights), _mix(v, v_before, self.value_weights)


def _mix(own: Tensor, before: Tensor, weights: Tensor) -> Tensor:
    return (weights[0] * own + weights[1] * before).to(own.dtype)
