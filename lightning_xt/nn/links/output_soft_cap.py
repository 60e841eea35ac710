from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.shapes import LayerShape
from lightning_xt.nn.links.base import Earlier, Link
from lightning_xt.system.option_checks import check_option


class OutputSoftCap(Link):
    """Limit the stream before the last norm by a tanh.

    Gemma Team, 2024 (Gemma 2, https://arxiv.org/abs/2408.00118) limits scores and logits so: cap * tanh(x / cap).
    In x-transformers: softclamp_output, softclamp_output_value.

    Args:
        cap: largest size of a feature.
    """

    def __init__(self, shape: LayerShape, index: int, calls: int, *, cap: float = 30.0) -> None:
        super().__init__()
        check_option("links: OutputSoftCap", "cap", cap, above=0)
        self.cap, self.at_output = cap, index == calls

    def mix_input(self, x: Float[Tensor, "b n D"], earlier: Earlier) -> Float[Tensor, "b n D"]:
        return self.cap * (x / self.cap).tanh() if self.at_output else x
