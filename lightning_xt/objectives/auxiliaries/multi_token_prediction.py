from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape, ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.models.stack import Stack
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.base import MixerFactory
from lightning_xt.nn.feedforward.base import FeedForwardFactory
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.initialization import initialize
from lightning_xt.nn.layouts.standard import Standard
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.placements.pre_norm import PreNorm
from lightning_xt.nn.residuals.add import Add
from lightning_xt.objectives.auxiliaries.base import Auxiliary
from lightning_xt.objectives.cross_entropy import IGNORED, cross_entropy
from lightning_xt.system.option_checks import check_option


class MultiTokenPrediction(Auxiliary):
    """Predict further tokens from each hidden state, each by a separate layer before the model's head.

    Gloeckle et al., 2024. https://arxiv.org/abs/2404.19737
    The model itself predicts the next token, without a further layer; in the paper each token has one, and the trunk
    is as many layers shallower. A token of another document is not predicted.

    Args:
        num_tokens: number of tokens predicted from each place, the next one included.
        weight: factor of the sum of the further tokens' losses. None = 1, as in the paper.
        attention: factory of each layer's attention.
        feedforward: factory of each layer's feedforward.
    """

    name = "multi_token"

    def __init__(
        self,
        shape: ObjectiveShape,
        *,
        num_tokens: int = 4,
        weight: float | None = None,
        attention: MixerFactory = Attention,
        feedforward: FeedForwardFactory = MLP,
    ) -> None:
        super().__init__()
        where = "auxiliaries: MultiTokenPrediction"
        check_option(where, "num_tokens", num_tokens, least=2)
        check_option(where, "weight", weight, above=0)
        self.weight = 1.0 if weight is None else weight
        # A tuple, because the head is the model's.
        self._head = (shape.head,)
        self.layers = nn.ModuleList(
            Stack(
                LayerShape(dim=shape.dim),
                attention=attention,
                cross_attention=None,
                feedforward=feedforward,
                norm=RMSNorm,
                placement=PreNorm,
                residual=Add,
                shift=None,
                scale=None,
                links=(),
                layout=Standard,
                dropout=0.0,
            )
            for _ in range(num_tokens - 1)
        )
        reading = [type(part).__name__ for part in self.layers.modules() if getattr(part, "reads_tokens", False)]
        if reading:
            raise ValueError(
                f"{where} has layers with {reading[0]}, which reads token ids, but they get hidden states only; "
                "choose another part"
            )
        initialize(self, calls=2)

    def forward(
        self, states: Float[Tensor, "b n D"], targets: Int[Tensor, "b n"], inputs: Inputs | None
    ) -> Float[Tensor, ""]:
        inputs = replace(inputs or Inputs(), context=None, context_mask=None, keys_values=None)
        n = states.shape[1]
        where = Where.from_sequence(n, causal=True, inputs=inputs, lengths=None, device=states.device)
        total = states.new_zeros((), dtype=torch.float32)
        for distance, layer in enumerate(self.layers, 1):
            x, trace = layer(states, where, inputs, Trace(), None)
            loss = cross_entropy(self._head[0](x), _shift_targets(targets, distance, inputs))
            total = total + loss.mean + sum(trace.sum_losses().values())
        return self.weight * total


def _shift_targets(targets: Int[Tensor, "b n"], distance: int, inputs: Inputs) -> Int[Tensor, "b n"]:
    """Return the target that many tokens further on; -100 beyond the end of the row or of the document."""
    rows, n = targets.shape
    reach = max(0, n - distance)
    further = targets[:, n - reach :]
    if inputs.documents is not None:
        same = inputs.documents[:, n - reach :] == inputs.documents[:, :reach]
        further = further.masked_fill(~same, IGNORED)
    return torch.cat((further, further.new_full((rows, n - reach), IGNORED)), dim=1)
