"""Decoder: an autoregressive language model."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.core.cache import Cache
from lightning_xt.core.extent import check_lengths
from lightning_xt.core.inputs import Inputs, check_inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.models.decoder_checks import check_cache, check_prefix, check_segments, check_sizes
from lightning_xt.models.decoding_cache import make_cache, run_announced
from lightning_xt.models.segmented import run_segments, run_stack
from lightning_xt.models.segmented_cache import SegmentedCache
from lightning_xt.models.segmented_decoding import decode_segments
from lightning_xt.models.stack import Stack
from lightning_xt.models.token_embedding import TokenEmbedding
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.base import MixerFactory, find_recurrences
from lightning_xt.nn.contexts.base import ContextFactory
from lightning_xt.nn.embeddings.base import EmbeddingFactory
from lightning_xt.nn.feedforward.base import FeedForwardFactory
from lightning_xt.nn.feedforward.mlp import MLP
from lightning_xt.nn.heads.base import HeadFactory
from lightning_xt.nn.heads.untied_head import UntiedHead
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
from lightning_xt.nn.segments.base import SegmentsFactory
from lightning_xt.nn.shifts.base import ShiftFactory
from lightning_xt.system.option_checks import check_slots


class Decoder(nn.Module):
    """Autoregressive decoder: scores each next token from the tokens before it.

    Radford et al., 2018 (GPT), after Liu et al., 2018, https://arxiv.org/abs/1801.10198.

    Args:
        vocab_size: number of different tokens; on the command line, the data's.
        context: factory of the vectors of cross-attention; in an encoder-decoder, the encoder's output. None = no
            cross-attention.
        dim: width of the residual stream.
        depth: number of layers.
        attention: factory of each layer's attention.
        feedforward: factory of each layer's feedforward.
        cross_attention: factory of each layer's attention to the context. None = Attention with its defaults over a
            sequence, such as an encoder's output, and without positions over vectors without an order.
        norm: factory of every norm.
        placement: the norms around a sublayer.
        residual: connection of sublayers to the stream.
        shift: mixes the token before into the input of each sublayer. None = no shift.
        scale: factor of each sublayer's output. None = no factor.
        links: connections across depth, from the inputs of earlier sublayers to each later one, in order.
        layout: order of the sublayers.
        passes: runs all layers several times, such as Recycling. None = once.
        embeddings: added to the token vectors before the first layer, in order.
        head: factory of the map from hidden states to logits.
        embedding_dim: width of the token vectors, which a linear map takes to dim. None = dim.
        segments: reading of long rows in segments that remember those before. None = each row at once.
        dropout: fraction of the embeddings and of each sublayer's output dropped in training.
        zero_outputs: True to start the last linear map of each sublayer at zero, so that sublayers add nothing
            at first. The stream then begins as the embeddings, unless residual, placement, links or passes change it.
        checkpoint_layers: true, or the number of layers from the first, whose activations training does not keep but
            computes again in the backward pass (activation checkpointing): less memory, the same gradients.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from lightning_xt import ALiBi, Attention, Decoder
        >>> model = Decoder(256, dim=64, depth=2, attention=partial(Attention, heads=4, position=ALiBi))
        >>> model(torch.zeros(2, 10, dtype=torch.long)).shape
        torch.Size([2, 10, 256])
    """

    @check_slots
    def __init__(
        self,
        vocab_size: int,
        context: ContextFactory | None = None,
        *,
        dim: int = 512,
        depth: int = 6,
        attention: MixerFactory = Attention,
        feedforward: FeedForwardFactory = MLP,
        cross_attention: MixerFactory | None = None,
        norm: NormFactory = RMSNorm,
        placement: PlacementFactory = PreNorm,
        residual: ResidualFactory = Add,
        shift: ShiftFactory | None = None,
        scale: ScaleFactory | None = None,
        links: Sequence[LinkFactory] = (),
        layout: LayoutFactory = Standard,
        passes: PassesFactory | None = None,
        embeddings: Sequence[EmbeddingFactory] = (),
        head: HeadFactory = UntiedHead,
        embedding_dim: int | None = None,
        segments: SegmentsFactory | None = None,
        dropout: float = 0.0,
        zero_outputs: bool = False,
        checkpoint_layers: bool | int = False,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size, dim, depth, dropout)
        if cross_attention is not None and context is None:
            raise ValueError("decoder: cross_attention is given without a context; give context too, or omit both")
        shape = LayerShape(dim=dim, depth=depth, vocab_size=vocab_size)
        self.token_embedding = TokenEmbedding(vocab_size, dim, embedding_dim, "decoder")
        added = [factory(shape) for factory in embeddings]
        self.embeddings = nn.ModuleList(added)
        self._limits = [part.max_length for part in added if part.max_length is not None]
        self.dropout = nn.Dropout(dropout)
        self.context = None if context is None else context(shape)
        if self.context is not None and cross_attention is None:
            cross_attention = Attention if self.context.ordered else partial(Attention, position=None)
        self.stack = Stack(
            replace(shape, context_dim=None if self.context is None else self.context.dim),
            attention=attention,
            cross_attention=cross_attention,
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
        self.segments = None if segments is None else segments(shape)
        if self.segments is not None:
            check_segments(self.segments, self.embeddings, self.stack)
        self.head = head(self.token_embedding)
        initialize(self, calls=self.stack.writes, zero_outputs=zero_outputs)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        lengths: Int[Tensor, " b"] | None = None,
        inputs: Inputs | None = None,
        cache: Cache | SegmentedCache | None = None,
        last_only: bool = False,
        trace: Trace | None = None,
    ) -> Any:
        """Compute the logits of the token after each given one, (b, n, v).

        Args:
            tokens: ids; shorter rows are padded on the right with any valid id.
            lengths: number of real tokens of each row. None = all.
            inputs: inputs besides the tokens.
            cache: cache of earlier forwards of these rows, from `new_cache`. The given tokens are appended to it; the
                next forward continues after them. None = no cache.
            last_only: True to return only the logits after each row's last real token, (b, 1, v).
            trace: empty trace that says what to keep; the filled one is then returned after the logits.
        """
        states, made = self._compute(tokens, lengths, inputs, cache, last_only, Trace() if trace is None else trace)
        logits = self.head(states)
        return logits if trace is None else (logits, made.finish(states))

    def compute_states(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        lengths: Int[Tensor, " b"] | None = None,
        inputs: Inputs | None = None,
        cache: Cache | SegmentedCache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b _ D"]:
        """Compute the hidden states from which the head makes logits, with the arguments of `forward`."""
        return self._compute(tokens, lengths, inputs, cache, last_only, Trace())[0]

    def _compute(
        self,
        tokens: Int[Tensor, "b n"],
        lengths: Int[Tensor, " b"] | None,
        inputs: Inputs | None,
        cache: Cache | SegmentedCache | None,
        last_only: bool,
        trace: Trace,
    ) -> tuple[Float[Tensor, "b _ D"], Trace]:
        """Compute the hidden states and the trace."""
        check_inputs(tokens, inputs)
        check_cache(cache, self.segments, self.stack, len(tokens), inputs)
        soft = 0 if inputs is None else inputs.num_soft_tokens
        rows, n = tokens.shape
        check_lengths(lengths, rows, n, least=1 if last_only and not soft else 0)
        lengths = None if lengths is None else soft + lengths
        forward = partial(run_announced, self)
        if self.segments is None:
            x, trace = forward(tokens, lengths, inputs, cache, trace)
        elif isinstance(cache, SegmentedCache):
            x = decode_segments(forward, tokens, lengths, inputs, cache, trace)
        else:
            x, trace = run_segments(forward, self.segments.length, tokens, lengths, inputs, trace)
        if not last_only:
            return x[:, soft:], trace.change_exits(lambda states: states[:, soft:])
        last = None if lengths is None else (lengths - 1).view(-1, 1, 1).expand(-1, 1, x.shape[-1])
        return x[:, -1:] if last is None else x.gather(1, last), trace

    def run_layers(
        self,
        tokens: Int[Tensor, "b n"],
        lengths: Int[Tensor, " b"] | None,
        inputs: Inputs | None,
        cache: Cache | SegmentedCache | None,
        trace: Trace,
    ) -> tuple[Float[Tensor, "b _ D"], Trace]:
        """Compute the hidden states of soft and other tokens that are announced to the cache, without committing them.

        With a static cache, only tensors change from token to token, so that this can be compiled once.
        """
        x = self.token_embedding(tokens)
        inputs = Inputs() if inputs is None else inputs.to(x.dtype)
        if inputs.prefix is not None:
            check_prefix(inputs, x.shape[-1])
            x = torch.cat((inputs.prefix, x), dim=1)
            if inputs.scored is not None:
                inputs = replace(inputs, scored=F.pad(inputs.scored, (inputs.num_soft_tokens, 0), value=False))
        else:
            inputs = replace(inputs, tokens=tokens)
        counted = cache.tokens if isinstance(cache, SegmentedCache) else cache
        if counted is None:
            where = Where.from_sequence(x.shape[1], causal=True, inputs=inputs, lengths=lengths, device=x.device)
        else:
            where = Where.from_cache(counted, inputs)
        for index, embedding in enumerate(self.embeddings):
            # Behind the calls of the layers.
            x = embedding(x, where, inputs, None if counted is None else counted[self.stack.calls + index])
        if self.context is not None and (counted is None or counted.empty):
            context, mask = self.context(x.shape[0], inputs)
            if counted is not None:
                counted.set_context(context, mask)
            inputs = replace(inputs, context=context, context_mask=mask)
        x = self.dropout(x)
        if self.segments is None:
            states, trace = self.stack(x, where, inputs, trace, cache)
        else:
            states, trace = run_stack(self.stack, self.segments, x, where, inputs, lengths, cache, trace)
        return self.token_embedding.map_back(states), trace.change_exits(self.token_embedding.map_back)

    def step(self, tokens: Int[Tensor, "b 1"], inputs: Inputs | None, cache: Cache) -> Float[Tensor, "b 1 v"]:
        """Compute the logits after one announced token of each row; compiled decoding compiles this method."""
        return self.head(self.run_layers(tokens, None, inputs, cache, Trace())[0])

    def new_cache(
        self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None, static: bool = False
    ) -> Cache | SegmentedCache:
        """Make an empty cache for decoding.

        Args:
            batch: number of rows.
            capacity: most tokens that a row will hold, prompt and soft prefix included.
            slack: tokens that windows keep beyond their width; `truncate` can remove as many.
            window: tokens that every layer may look back, not for recurrences. None = each layer's own window.
            static: True if the shapes of decode steps seldom change, for compiled steps.
        """
        return make_cache(self, batch, capacity, slack=slack, window=window, static=static)

    @property
    def recurrences(self) -> list[str]:
        """Names of the parts with a running state."""
        return find_recurrences(self) + ([] if self.segments is None else [type(self.segments).__name__])

    @property
    def vocab_size(self) -> int:
        """Number of different tokens."""
        return self.token_embedding.num_embeddings

    @property
    def max_length(self) -> int | None:
        """Longest sequence whose positions the embeddings distinguish, in tokens. None = any."""
        # Positions begin again with each segment.
        return None if self.segments is not None else min(self._limits, default=None)
