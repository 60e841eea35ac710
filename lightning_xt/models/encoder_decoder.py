"""Encoder-decoder: a decoder with cross-attention to an encoder."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.nn.contexts.base import ContextFactory
from lightning_xt.nn.contexts.given_context import GivenContext
from lightning_xt.system.option_checks import check_option, check_slots

EncoderFactory = Callable[[int], Encoder]
"""Called with the number of different source tokens."""
CrossDecoderFactory = Callable[[int, ContextFactory], Decoder]
"""Called with the number of different target tokens and with the context of its cross-attention."""


class EncoderDecoder(nn.Module):
    """Encoder-decoder: scores each next token of a target from the tokens before it and from the whole source.

    Vaswani et al., 2017. https://arxiv.org/abs/1706.03762

    Args:
        source_size: number of different source tokens.
        target_size: number of different target tokens.
        encoder: factory of the encoder.
        decoder: factory of the decoder.
        shared_embedding: True if source and target tokens share one table of vectors.
        context_dropout: fraction of the source's positions that are hidden from cross-attention in training.

    Examples:
        >>> import torch
        >>> from functools import partial
        >>> from lightning_xt import Decoder, Encoder, EncoderDecoder
        >>> sizes = {"dim": 64, "depth": 2}
        >>> model = EncoderDecoder(100, 120, encoder=partial(Encoder, **sizes), decoder=partial(Decoder, **sizes))
        >>> src, tgt = torch.zeros(2, 9, dtype=torch.long), torch.zeros(2, 7, dtype=torch.long)
        >>> model(src, tgt).shape
        torch.Size([2, 7, 120])
    """

    @check_slots
    def __init__(
        self,
        source_size: int,
        target_size: int,
        *,
        encoder: EncoderFactory = Encoder,
        decoder: CrossDecoderFactory = Decoder,
        shared_embedding: bool = False,
        context_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_option("model", "context_dropout", context_dropout, least=0, below=1)
        self.encoder = encoder(source_size)
        self.decoder = decoder(target_size, partial(GivenContext, dim=self.encoder.dim))
        self.context_dropout = context_dropout
        if shared_embedding:
            self._share_embedding()

    def forward(
        self,
        src: Int[Tensor, "b m"],
        tgt: Int[Tensor, "b n"],
        src_mask: Bool[Tensor, "b m"] | None = None,
        *,
        inputs: Inputs | None = None,
        source_inputs: Inputs | None = None,
        trace: Trace | None = None,
    ) -> Any:
        """Compute the logits of the token after each target token, (b, n, v).

        Args:
            src: source ids; padding may be any valid id.
            tgt: target ids, the start token first; shorter rows are padded on the right with any valid id.
            src_mask: True for source ids, False for padding. None = no padding.
            inputs: inputs of the decoder besides the target.
            source_inputs: inputs of the encoder besides the source. None = the condition of `inputs`.
            trace: empty trace that says what to keep; the decoder's filled one, which holds the encoder's as `source`,
                is then returned after the logits.
        """
        if trace is None:
            return self.decoder(tgt, inputs=self.encode(src, src_mask, inputs=inputs, source_inputs=source_inputs))
        known, source = self._encode(src, src_mask, inputs, source_inputs, trace)
        logits, made = self.decoder(tgt, inputs=known, trace=trace)
        return logits, replace(made, source=source)

    def encode(
        self,
        src: Int[Tensor, "b m"],
        src_mask: Bool[Tensor, "b m"] | None = None,
        *,
        inputs: Inputs | None = None,
        source_inputs: Inputs | None = None,
    ) -> Inputs:
        """Encode sources into inputs of the decoder, once for all decode steps, with the arguments of `forward`."""
        return self._encode(src, src_mask, inputs, source_inputs, Trace())[0]

    def _encode(
        self,
        src: Int[Tensor, "b m"],
        src_mask: Bool[Tensor, "b m"] | None,
        inputs: Inputs | None,
        source_inputs: Inputs | None,
        trace: Trace,
    ) -> tuple[Inputs, Trace]:
        inputs = Inputs() if inputs is None else inputs
        check_mask(src, src_mask)
        # A condition of each target token says nothing of source tokens.
        shared = inputs.condition if inputs.condition is not None and inputs.condition.dim() == 2 else None
        own = Inputs(condition=shared) if source_inputs is None else source_inputs
        if own.hidden_tokens is not None:
            # Cross-attention does not see them either.
            src_mask = ~own.hidden_tokens if src_mask is None else src_mask & ~own.hidden_tokens
        context, made = self.encoder(src, src_mask, inputs=own, trace=trace)
        if self.training and self.context_dropout:
            src_mask = self._drop_positions(src, src_mask)
        return replace(inputs, context=context, context_mask=src_mask), made

    @property
    def max_length(self) -> int | None:
        """Longest source and target whose positions the embeddings distinguish, in tokens. None = any."""
        limits = [part.max_length for part in (self.encoder, self.decoder) if part.max_length is not None]
        return min(limits, default=None)

    def _drop_positions(self, src: Tensor, src_mask: Tensor | None) -> Bool[Tensor, "b m"]:
        """Hide random positions; each row keeps at least one."""
        real = torch.ones_like(src, dtype=torch.bool) if src_mask is None else src_mask
        drawn = torch.rand(src.shape, device=src.device).masked_fill(~real, -1)
        kept = drawn >= self.context_dropout
        highest = torch.arange(src.shape[1], device=src.device) == drawn.argmax(dim=1, keepdim=True)
        return real & (kept | highest)

    def _share_embedding(self) -> None:
        ours, theirs = self.encoder.token_embedding, self.decoder.token_embedding
        widths = [None if each.projection is None else each.projection.out_features for each in (ours, theirs)]
        if ours.weight.shape != theirs.weight.shape or widths[0] != widths[1]:
            raise ValueError(
                f"model.shared_embedding is on, but the encoder embeds {ours.num_embeddings} tokens in "
                f"{ours.embedding_dim} numbers and the decoder {theirs.num_embeddings} in {theirs.embedding_dim}; give "
                "both the same vocabulary, dim and embedding_dim, or set --model.shared_embedding false"
            )
        # The decoder's: its head may be tied to it.
        self.encoder.token_embedding = theirs


def check_mask(src: Tensor, src_mask: Tensor | None) -> None:
    """Refuse a source mask that is not boolean, or does not have the shape of the sources, by a ValueError."""
    if src_mask is not None and (src_mask.shape != src.shape or src_mask.dtype != torch.bool):
        raise ValueError(
            f"src_mask is a {src_mask.dtype} tensor of shape {tuple(src_mask.shape)}; it must be boolean, True for "
            f"source ids and False for padding, and of the sources' shape {tuple(src.shape)}"
        )
