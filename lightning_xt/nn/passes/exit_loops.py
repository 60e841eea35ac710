from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.passes.base import Passes, RunPass
from lightning_xt.system.option_checks import check_option


class ExitLoops(Passes):
    """Run the stack again on its own output, several times; the output of every pass can be an exit.

    Zhu et al., 2025 (Ouro, looped language models). https://arxiv.org/abs/2510.25741
    Each pass ends with the norm of the output. The head reads the last one; the auxiliary ExitGate trains all exits,
    and a gate that chooses among them. Decoding always runs all passes: a token that left earlier would have no keys in
    the later ones, which other tokens read.
    In x-transformers: looped, max_looped_steps.

    Args:
        passes: number of passes.
    """

    def __init__(self, shape: LayerShape, norm: NormFactory, *, passes: int = 4) -> None:
        check_option("passes: ExitLoops", "passes", passes, least=1)
        super().__init__(passes, counted=passes)

    def forward(
        self, x: Float[Tensor, "b n D"], run: RunPass, inputs: Inputs, trace: Trace, cached: bool
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        for number in range(self.passes):
            x, trace = run(x, trace.begin_pass(), number)
            trace = trace.add_exit(x)
        return x, trace
