"""Reads a source, every token in sight of every other."""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.models.stack import Stack
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.base import MixerFactory
from lightning_xt.nn.embeddings.base import EmbeddingFactory
from lightning_xt.nn.feedforward.base import FeedForwardFactory
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.initialization import initialize
from lightning_xt.nn.layouts.base import LayoutFactory
from lightning_xt.nn.layouts.standard import Standard
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.placements.base import PlacementFactory
from lightning_xt.nn.placements.pre_norm import PreNorm
from lightning_xt.nn.residuals.add import Add
from lightning_xt.nn.residuals.base import ResidualFactory
from lightning_xt.nn.shifts.base import ShiftFactory
from lightning_xt.system.option_checks import check_option


class Encoder(nn.Module):
    """Turns each token into a vector that knows of all the others.

    The encoder of Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

    Args:
        vocab_size: number of different tokens; from the command line the data's.
        dim: width of the residual stream.
        depth: number of layers.
        attention: recipe of each layer's attention.
        feedforward: recipe of each layer's feedforward.
        norm: recipe of every norm.
        placement: where norms stand around a sublayer.
        residual: how sublayers read and write the stream.
        shift: mixes the token before into what each sublayer reads. None = nothing.
        layout: the order of sublayers.
        embeddings: what is added to token vectors before the first layer, in order.
        dropout: share of the embeddings and of each sublayer's output dropped in training.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        dim: int = 512,
        depth: int = 6,
        attention: MixerFactory = Attention,
        feedforward: FeedForwardFactory = MLP,
        norm: NormFactory = RMSNorm,
        placement: PlacementFactory = PreNorm,
        residual: ResidualFactory = Add,
        shift: ShiftFactory | None = None,
        layout: LayoutFactory = Standard,
        embeddings: Sequence[EmbeddingFactory] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in (("vocab_size", vocab_size), ("dim", dim), ("depth", depth)):
            check_option("encoder", name, value, least=1)
        check_option("encoder", "dropout", dropout, least=0, below=1)
        self.dim = dim
        shape = LayerShape(dim=dim, depth=depth, causal=False)
        self.token_embedding = nn.Embedding(vocab_size, dim)
        added = [factory(shape) for factory in embeddings]
        self.embeddings = nn.ModuleList(added)
        self.max_length = min((part.max_length for part in added if part.max_length is not None), default=None)
        """Longest source the embeddings can tell apart, in tokens. None = any."""
        self.dropout = nn.Dropout(dropout)
        self.stack = Stack(
            shape,
            attention=attention,
            cross_attention=None,
            feedforward=feedforward,
            norm=norm,
            placement=placement,
            residual=residual,
            shift=shift,
            layout=layout,
            dropout=dropout,
        )
        initialize(self, calls=len(self.stack.steps))

    def forward(
        self, tokens: Int[Tensor, "b m"], mask: Bool[Tensor, "b m"] | None = None, *, inputs: Inputs | None = None
    ) -> Float[Tensor, "b m D"]:
        """One vector per token.

        Args:
            tokens: ids; what is no part of a source may be any valid id.
            mask: True where a token is part of the source. None = all are.
            inputs: what comes beside the tokens.
        """
        inputs = Inputs() if inputs is None else inputs
        if inputs.prefix is not None:
            raise ValueError("Inputs(prefix=...) stands before a decoder's tokens, not a source's; leave it away")
        if mask is not None:
            inputs = replace(inputs, hidden=~mask if inputs.hidden is None else inputs.hidden | ~mask)
        where = Where.from_sequence(tokens.shape[1], causal=False, inputs=inputs, lengths=None, device=tokens.device)
        x = self.token_embedding(tokens)
        for embedding in self.embeddings:
            x = embedding(x, where, inputs)
        hidden: Tensor = self.stack(self.dropout(x), where, inputs, None)
        return hidden

    @property
    def vocab_size(self) -> int:
        """Number of different tokens."""
        return self.token_embedding.num_embeddings
