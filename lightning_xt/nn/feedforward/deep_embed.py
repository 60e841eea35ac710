from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.feedforward.base import FeedForward, FeedForwardFactory
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.system.option_checks import check_slots


class DeepEmbed(FeedForward):
    """Multiply the output of a feedforward by a gain of each feature that each token of the vocabulary has per layer.

    Peng, 2025 (RWKV-8). https://github.com/BlinkDL/RWKV-LM
    The gain is 1 plus a row of a table, which starts near zero.
    In x-transformers: ff_deep_embed.

    Args:
        feedforward: feedforward whose output is multiplied.
    """

    reads_tokens: ClassVar = True

    @check_slots
    def __init__(self, shape: LayerShape, *, feedforward: FeedForwardFactory = MLP) -> None:
        super().__init__()
        self.feedforward = feedforward(shape)
        self.table = nn.Embedding(shape.vocab_size, shape.dim)

    def forward(self, x: Float[Tensor, "b n D"]) -> Float[Tensor, "b n D"]:
        raise TypeError("DeepEmbed reads token ids, so it cannot be called with vectors only; use `transform`")

    def transform(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, trace: Trace
    ) -> tuple[Float[Tensor, "b n D"], Trace]:
        out, trace = self.feedforward.transform(x, where, inputs, trace)
        return out * (1 + self.table(inputs.require("tokens", self)).to(out.dtype)), trace
