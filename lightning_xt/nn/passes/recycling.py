from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.passes.base import Passes, RunPass
from lightning_xt.system.option_checks import check_option


class Recycling(Passes):
    """Add the normed output of each pass to the embeddings that the next pass reads.

    Jumper et al., 2021 (AlphaFold 2). https://doi.org/10.1038/s41586-021-03819-2
    Only the last pass gets gradients, so that training keeps the activations of one pass. In training the number of
    passes is drawn for each forward, from 1 to `passes`, the same in all processes. The pass before the first has
    an output of zeros. Keys of a trace, such as maps of attention, are those of the last pass.
    In x-transformers: recycling, train_max_recycle_steps; a linear map instead of a norm, each process draws for
    itself, and no decoding with a cache.

    Args:
        passes: number of passes in evaluation and decoding, and most passes in training.
    """

    def __init__(self, shape: LayerShape, norm: NormFactory, *, passes: int = 4) -> None:
        check_option("passes: Recycling", "passes", passes, least=1)
        super().__init__(passes, counted=1)
        self.norm = norm(shape)

    def forward(
        self, x: Float[Tensor, "b n D"], run: RunPass, inputs: Inputs, trace: Trace, cached: bool
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        last = self.passes - 1
        if self.training and not cached:
            last = _draw_number(self.passes, x.device)
        states = torch.zeros_like(x)
        with torch.no_grad():
            for number in range(last):
                states, made = run(x + self.norm(states, inputs).to(x.dtype), trace, number)
                trace = replace(trace, drawn=made.drawn)
        return run(x + self.norm(states, inputs).to(x.dtype), trace, last)


@torch.compiler.disable
def _draw_number(end: int, device: torch.device) -> int:
    """Draw a number from 0 up to `end`, excluded. All processes draw the first one's, and wait for each other."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    # Without other processes the number is drawn on the CPU, where nothing waits for the device.
    drawn = torch.randint(0, end, (1,), device=device if distributed else None)
    if distributed:
        torch.distributed.broadcast(drawn, 0)
    return int(drawn)
