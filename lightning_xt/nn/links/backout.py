import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.links.base import Earlier, Link
from lightning_xt.system.option_checks import check_option


class Backout(Link):
    """Subtract from the output the input of a sublayer in the middle, times a learned number.

    Public speedruns of small GPTs. https://github.com/KellerJordan/modded-nanogpt
    The last layers can so remove from the output what only the first ones needed.

    Args:
        fraction: place of that sublayer, as a fraction of the calls of a forward, at least 0 and below 1.
        init: start of the number.
    """

    def __init__(self, shape: LayerShape, index: int, calls: int, *, fraction: float = 0.65, init: float = 0.2) -> None:
        super().__init__()
        check_option("links: Backout", "fraction", fraction, least=0, below=1)
        self.at = int(fraction * calls)
        self.factor = nn.Parameter(torch.full((1,), init)) if index == calls else None

    def mix_input(self, x: Float[Tensor, "b n D"], earlier: Earlier) -> Float[Tensor, "b n D"]:
        return x if self.factor is None else x - self.factor.to(x.dtype) * earlier[self.at]
