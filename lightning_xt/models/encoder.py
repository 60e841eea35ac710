"""Encoder: hidden states of a source, in which every token sees every other."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs, check_inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.models.stack import Stack
from lightning_xt.models.token_embedding import TokenEmbedding
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.base import MixerFactory
from lightning_xt.nn.embeddings.base import EmbeddingFactory
from lightning_xt.nn.feedforward.base import FeedForwardFactory
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.initialization import initialize
from lightning_xt.nn.layouts.base import LayoutFactory
from lightning_xt.nn.layouts.standard import Standard
from lightning_xt.nn.links.base import LinkFactory
from lightning_xt.nn.norms.base import NormFactory
from lightning_xt.nn.norms.rms_norm import RMSNorm
from lightning_xt.nn.passes.base import PassesFactory
from lightning_xt.nn.placements.base import PlacementFactory
from lightning_xt.nn.placements.pre_norm import PreNorm
from lightning_xt.nn.residuals.add import Add
from lightning_xt.nn.residuals.base import ResidualFactory
from lightning_xt.nn.scales.base import ScaleFactory
from lightning_xt.nn.shifts.base import ShiftFactory
from lightning_xt.system.option_checks import check_option, check_slots


class Encoder(nn.Module):
    """Bidirectional encoder: turns each token into a vector that depends on all tokens.

    The encoder of Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

    Args:
        vocab_size: number of different tokens; on the command line, the data's.
        dim: width of the residual stream.
        depth: number of layers.
        attention: factory of each layer's attention.
        feedforward: factory of each layer's feedforward.
        norm: factory of every norm.
        placement: the norms around a sublayer.
        residual: connection of sublayers to the stream.
        shift: mixes the token before into the input of each sublayer. None = no shift.
        scale: factor of each sublayer's output. None = no factor.
        links: connections across depth, from the inputs of earlier sublayers to each later one, in order.
        layout: order of the sublayers.
        passes: runs all layers several times, such as Recycling. None = once.
        embeddings: added to the token vectors before the first layer, in order.
        embedding_dim: width of the token vectors, which a linear map takes to dim. None = dim.
        dropout: fraction of the embeddings and of each sublayer's output dropped in training.
        zero_outputs: True to start the last linear map of each sublayer at zero, so that sublayers add nothing
            at first. The stream then begins as the embeddings, unless residual, placement, links or passes change it.
        checkpoint_layers: true, or the number of layers from the first, whose activations training does not keep but
            computes again in the backward pass (activation checkpointing): less memory, the same gradients.

    Examples:
        >>> import torch
        >>> from lightning_xt import Encoder
        >>> model = Encoder(256, dim=64, depth=2)
        >>> model(torch.zeros(2, 10, dtype=torch.long)).shape
        torch.Size([2, 10, 64])
    """

    @check_slots
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
        scale: ScaleFactory | None = None,
        links: Sequence[LinkFactory] = (),
        layout: LayoutFactory = Standard,
        passes: PassesFactory | None = None,
        embeddings: Sequence[EmbeddingFactory] = (),
        embedding_dim: int | None = None,
        dropout: float = 0.0,
        zero_outputs: bool = False,
        checkpoint_layers: bool | int = False,
    ) -> None:
        super().__init__()
        for name, value in (("vocab_size", vocab_size), ("dim", dim), ("depth", depth)):
            check_option("encoder", name, value, least=1)
        check_option("encoder", "dropout", dropout, least=0, below=1)
        self.dim = dim
        shape = LayerShape(dim=dim, depth=depth, causal=False, vocab_size=vocab_size)
        self.token_embedding = TokenEmbedding(vocab_size, dim, embedding_dim, "encoder")
        added = [factory(shape) for factory in embeddings]
        self.embeddings = nn.ModuleList(added)
        self.max_length = min((part.max_length for part in added if part.max_length is not None), default=None)
        """Longest source whose positions the embeddings distinguish, in tokens. None = any."""
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
            scale=scale,
            links=links,
            layout=layout,
            passes=passes,
            dropout=dropout,
            checkpoint_layers=checkpoint_layers,
        )
        initialize(self, calls=self.stack.writes, zero_outputs=zero_outputs)

    def forward(
        self,
        tokens: Int[Tensor, "b m"],
        mask: Bool[Tensor, "b m"] | None = None,
        *,
        inputs: Inputs | None = None,
        trace: Trace | None = None,
    ) -> Any:
        """Compute one vector per token, (b, m, D).

        Args:
            tokens: ids; padding may be any valid id.
            mask: True for tokens of the source, False for padding. None = no padding.
            inputs: inputs besides the tokens.
            trace: empty trace that says what to keep; the filled one is then returned after the vectors.
        """
        inputs = Inputs() if inputs is None else inputs
        check_inputs(tokens, inputs)
        if inputs.prefix is not None:
            raise ValueError("Inputs(prefix=...) belongs to a decoder's tokens, not to a source; omit it")
        if mask is not None:
            if mask.shape != tokens.shape or mask.dtype != torch.bool:
                raise ValueError(
                    f"mask is a {mask.dtype} tensor of shape {tuple(mask.shape)}; it must be boolean, of the tokens' "
                    f"shape {tuple(tokens.shape)}"
                )
            hidden = inputs.hidden_tokens
            inputs = replace(inputs, hidden_tokens=~mask if hidden is None else hidden | ~mask)
        where = Where.from_sequence(tokens.shape[1], causal=False, inputs=inputs, lengths=None, device=tokens.device)
        inputs = replace(inputs, tokens=tokens)
        x = self.token_embedding(tokens)
        for embedding in self.embeddings:
            x = embedding(x, where, inputs)
        states, made = self.stack(self.dropout(x), where, inputs, Trace() if trace is None else trace, None)
        return states if trace is None else (states, made.finish(states))

    @property
    def vocab_size(self) -> int:
        """Number of different tokens."""
        return self.token_embedding.num_embeddings
