import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.shifts.base import Shift
from lightning_xt.system.option_checks import check_option


class TokenShift(Shift):
    """Take a part of each token's features from the token before it.

    Peng, 2021 (RWKV-LM). https://doi.org/10.5281/zenodo.5196578
    The last features are the shifted ones. The first token of a row or of a document gets zeros, and so does the token
    after a masked one.

    Args:
        fraction: fraction of the features that come from the token before, above 0 and at most 1.
    """

    def __init__(self, shape: LayerShape, *, fraction: float = 0.5) -> None:
        super().__init__()
        check_option("shift: TokenShift", "fraction", fraction, above=0, most=1)
        self.shifted = max(1, round(fraction * shape.dim))

    def forward(self, x: Float[Tensor, "b n D"], where: Where, cache: CallCache | None) -> Float[Tensor, "b n D"]:
        own, passed = x.split((x.shape[-1] - self.shifted, self.shifted), dim=-1)
        if where.valid is not None:
            passed = passed.masked_fill(~where.valid[..., None], 0.0)
        first = torch.zeros_like(passed[:, :1]) if cache is None else cache.get_last("shifted", passed)
        if cache is not None:
            cache.append("shifted", passed, window=1)
        before = torch.cat((first, passed[:, :-1]), dim=1)
        if where.query_documents is not None:
            before = before.masked_fill((where.queries == 0)[..., None], 0.0)
        return torch.cat((own, before), dim=-1)
