import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.previous_tokens import get_previous
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.shifts.base import Shift
from lightning_xt.system.option_checks import check_option


class TokenShift(Shift):
    """Take a part of each token's features from the tokens before it.

    Peng, 2021 (RWKV-LM). https://doi.org/10.5281/zenodo.5196578
    The last features are the shifted ones. The first token of a row or of a document gets zeros, and so does the token
    after a masked one.
    In x-transformers: shift_tokens; its k is a max_distance of k and a fraction of k / (k + 1), and in an encoder it
    also takes features from later tokens.

    Args:
        fraction: fraction of the features that come from tokens before, above 0 and at most 1.
        max_distance: the shifted features are divided into as many parts, which come from 1, 2, ... tokens before.
    """

    def __init__(self, shape: LayerShape, *, fraction: float = 0.5, max_distance: int = 1) -> None:
        super().__init__()
        check_option("shift: TokenShift", "fraction", fraction, above=0, most=1)
        self.shifted = max(1, round(fraction * shape.dim))
        check_option("shift: TokenShift", "max_distance", max_distance, least=1, most=self.shifted)
        self.max_distance = max_distance

    def forward(self, x: Float[Tensor, "b n D"], where: Where, cache: CallCache | None) -> Float[Tensor, "b n D"]:
        own, passed = x.split((x.shape[-1] - self.shifted, self.shifted), dim=-1)
        before = get_previous(passed, where, cache, "shifted", self.max_distance)
        parts = [each.tensor_split(self.max_distance, dim=-1)[index] for index, each in enumerate(before)]
        return torch.cat((own, *parts), dim=-1)
