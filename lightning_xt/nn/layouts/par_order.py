from collections.abc import Sequence

from lightning_xt.nn.layouts.base import Kind, Layout, Step, build_steps
from lightning_xt.system.option_checks import check_option


class PAROrder(Layout):
    """Have fewer attention sublayers, evenly spread over the first two thirds of the stack, and feedforwards elsewhere.

    Mandava et al., 2020 (Pay Attention when Required). https://arxiv.org/abs/2009.04534
    Of the 2 depth sublayers one of `ratio` is attention, followed by cross-attention if there is any.
    In x-transformers: par_ratio; some attention beyond two thirds there.

    Args:
        ratio: sublayers for each attention, from 2 to 2 depth.
    """

    def __init__(self, depth: int, *, ratio: int = 4) -> None:
        super().__init__(depth)
        check_option("layout: PAROrder", "ratio", ratio, least=2, most=2 * depth)
        self.ratio = ratio

    def list_steps(self, kinds: Sequence[Kind]) -> Sequence[Step]:
        sublayers = 2 * self.depth
        attentions = sublayers // self.ratio
        places = {number * (2 * sublayers // 3) // attentions for number in range(attentions)}
        return build_steps("".join("a" if place in places else "f" for place in range(sublayers)), kinds)
